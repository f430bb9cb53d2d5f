//! The admin's program; see `coordinator::ctl`.

use std::process::ExitCode;

fn main() -> ExitCode {
    coordinator::ctl::main(std::env::args_os())
}
