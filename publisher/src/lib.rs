//! The upstream daemon: makes generations, packs and serves them.
