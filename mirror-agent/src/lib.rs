//! The daemon of a mirror site.
