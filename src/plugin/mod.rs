//! The plugin's HTTP server over a unix socket: authorization requests (and, later, volumes).
