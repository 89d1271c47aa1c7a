"""The parts of a tenant, one module each: what a look finds of it, its actions, its plan, its removal and its verdict."""
