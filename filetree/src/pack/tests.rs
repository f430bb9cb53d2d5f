//! Packs on real directories, from end to end.

mod chains;
mod fixtures;
mod fuzz;
mod hostile;
mod inside;
mod packs;
mod rules;
mod shared;
mod steps;
mod support;
