"""The calls of aiokafka that Freshet makes through Faust."""
