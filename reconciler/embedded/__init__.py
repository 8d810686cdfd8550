"""The PostgreSQL that the reconciler runs itself, for `dsn: embedded`."""
