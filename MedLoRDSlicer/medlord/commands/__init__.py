"""The verbs of the command line: one module each, with `add_arguments(parser)` and `run(arguments, console)`.

A verb module imports only the standard library at its top, so that `medlord --help` answers at once.
"""
