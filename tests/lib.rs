//! Testbed and scenarios over the whole network; nobody depends on it.
