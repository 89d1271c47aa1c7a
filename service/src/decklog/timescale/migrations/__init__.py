"""Migrations of the control tables, in order of their names; each is run once, by `control.migrate_control`."""
