//! Packs on real directories, from end to end.

mod fixtures;
mod hostile;
mod packs;
mod support;
