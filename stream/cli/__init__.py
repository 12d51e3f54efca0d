"""The command line: one file per family of commands, built on settings.

    settings_file   TOML, with the line of every value
    config_fields   the fields of a config class as settings: type, default, meaning
    sections        which section of the settings file belongs to which config class
    settings        defaults, file, environment, command line: the value that applies, and its origin
    options         click options from settings

A new setting is a field of a config class, with a string below it that says what it means. A new section is one line in
`sections`. A new command is a function with the decorator `options.command`, which names the settings with an option.
"""
