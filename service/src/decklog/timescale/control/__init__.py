"""The control plane in PostgreSQL: control tables, migrations, roles and relations."""
