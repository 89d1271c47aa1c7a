"""The rooms that join services and adapters into programs: the only ones that import adapters.

Each opener opens what one kind of process needs and nothing else. It must not import the command line.
An adapter whose library is optional or heavy is imported by the opener that needs it, and only where it is configured.
"""
