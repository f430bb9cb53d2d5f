//! What `make install` places.
