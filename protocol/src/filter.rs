//! Rsync's filter rules.
