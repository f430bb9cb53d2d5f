//! Packs on real directories, from end to end.

mod hostile;
mod packs;
mod support;
