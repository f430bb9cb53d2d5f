//! Rsync's filter rules.

mod level;

pub use level::{Level, LevelKind, Origin};
