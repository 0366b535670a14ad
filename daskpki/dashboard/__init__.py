"""The scheduler's dashboard for a person's browser, by the person's login: a proxy that speaks mutual TLS."""
