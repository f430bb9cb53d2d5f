//! `mirror-agent`: the daemon of a mirror site, and the commands that talk to it.

fn main() -> std::process::ExitCode {
    mirror_agent::cli::main()
}
