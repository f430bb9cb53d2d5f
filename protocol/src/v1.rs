//! The API, version 1: one file per endpoint.

pub mod enroll;
