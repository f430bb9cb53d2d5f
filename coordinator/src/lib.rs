//! The central coordinator and mirrorctl.
