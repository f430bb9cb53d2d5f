//! The coordinator's rules: what may be defined, what follows from it, and what is current.
//!
//! Nothing here knows HTTP or SQL. Every decision is a pure function of what it is given, the
//! clock included, so that it can be tested as a table and asked twice with the same answer; the
//! functions that store are a decision between a read and a write, in one transaction.

pub mod admission;
mod alarms;
pub mod define;
pub mod definition;
pub mod effective;
pub mod enroll;
mod enrollments;
mod error;
pub mod events;
pub mod history;
pub mod identities;
mod late;
pub mod leases;
mod mandates;
pub mod orders;
pub mod picture;
pub mod poll;
pub mod publish;
pub mod roots;
pub mod rotation;
mod standing;
mod state;
pub mod status;
mod tree_keys;
pub mod upkeep;

pub use self::{
    enroll::Enrolled,
    error::{Error, Refusal},
    picture::Picture,
    state::{App, Clock, Parts, Write},
};
