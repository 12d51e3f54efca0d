"""The whole pipeline on one machine: supervised children, status page, terminal."""
