//! The program's pages of the reference, against the program.

use clap::CommandFactory as _;

use super::Cli;
use crate::config::Config;

#[test]
fn the_reference_in_the_documentation_is_what_the_program_says() {
    reference::check("publisher", &reference::program(Cli::command(), "publisher"));
}

#[test]
fn every_key_of_the_configuration_is_described() {
    let defaults = serde_json::to_value(Config::default()).unwrap();
    reference::configuration(&Cli::command(), &defaults);
}
