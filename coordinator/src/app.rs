//! The coordinator's rules: what may be defined, what follows from it, and what is current.
//!
//! Nothing here knows HTTP or SQL. Every decision is a pure function of what it is given, the
//! clock included, so that it can be tested as a table and asked twice with the same answer.

pub mod definition;
pub mod effective;
