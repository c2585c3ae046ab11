"""The promises of the service. No test needs a server, a network, or anything from the environment of its caller."""
