//! Sites, grants and assignments.

use super::*;

#[test]
fn sites_are_checked_in_themselves() {
    let site = |rest: &str| format!("[[site]]\nname = \"s\"\n{rest}\n");
    refused(&[
        (&site("prefix = \"/srv\""), 3, &["prefix \"/srv\"", "relative to the publish directory"]),
        (&site("prefix = \"a/../b\""), 3, &["'..'"]),
        (&site("prefix = \"a/.mirrornet\""), 3, &["belongs to the agent"]),
        (&site("timezone = \"Lisbon/Europe\""), 3, &["timezone \"Lisbon/Europe\" is not known"]),
        (
            &site("bandwidth = [\n{ when = \"monday\", rate = \"1MiB/s\" }]"),
            4,
            &["when = \"monday\"", "mon-fri"],
        ),
        (&site("default-rate = \"0B/s\""), 3, &["a rate of 0"]),
        (&site("budget = \"500GiB\""), 3, &["`budget`", "500GiB/month"]),
    ]);
    apply(&base(), &site("timezone = \"Europe/Lisbon\"\nbandwidth = [{ when = \"mon-fri 08-18\", rate = \"2MiB/s\" }, { when = \"22-06\", rate = \"unlimited\" }]")).unwrap();
}

#[test]
fn paths_of_one_site_are_apart_also_from_what_is_stored() {
    let more = |path: &str| {
        format!(
            "[[tree]]\nname = \"t\"\nsource = \"releases\"\n[[grant]]\nsite = \"lisbon\"\ntree = \"t\"\n[[assignment]]\nsite = \"lisbon\"\ntree = \"t\"\npath = \"{path}\"\n"
        )
    };
    refused(&[
        (&more("fedora"), 10, &["t@lisbon", "equals", "fedora@lisbon"]),
        (&more("fedora/sub/dir"), 10, &["lies inside of fedora"]),
        (&more("x/.mirrornet/y"), 10, &["belongs to the agent"]),
        (&more("../x"), 10, &["'..'"]),
    ]);
    for apart in ["fedora-2", "fedor", "x/fedora"] {
        apply(&base(), &more(apart)).unwrap();
    }
    let stored = apply(&base(), &more("other/t")).unwrap().next;
    let outer = "[[assignment]]\nsite = \"lisbon\"\ntree = \"fedora\"\npath = \"other\"\n";
    let found = findings(apply(&stored, outer));
    assert!(found[0].starts_with("4: ") && found[0].contains("lies inside of other"), "{found:?}");
}

#[test]
fn assignments_are_checked_in_themselves() {
    let assignment =
        |rest: &str| format!("[[assignment]]\nsite = \"lisbon\"\ntree = \"fedora\"\n{rest}\n");
    refused(&[
        (&assignment("group = \"1001\""), 4, &["\"1001\" is not the name of a group"]),
        (&assignment("group = \"-x\""), 4, &["not the name of a group"]),
        (&assignment("chmod = \"rwx\""), 4, &["chmod \"rwx\"", "D755,F644"]),
        (&assignment("chmod = \"u+s\""), 4, &["set-user"]),
        (&assignment("keep-withdrawn = \"1y\""), 4, &["not a time"]),
    ]);
}

#[test]
fn an_assignment_without_a_live_grant_is_taken_with_a_warning() {
    let site = "[[site]]\nname = \"porto\"\n";
    let assignment = "[[assignment]]\nsite = \"porto\"\ntree = \"fedora\"\n";
    let past = "[[grant]]\nsite = \"porto\"\ntree = \"fedora\"\nuntil = 2026-01-01T00:00:00Z\n";
    warned(&[
        (&format!("{site}{assignment}"), &["fedora@porto has no grant", "[[grant]]"]),
        (&format!("{site}{assignment}{past}"), &["grant fedora@porto has ended already"]),
    ]);
}

#[test]
fn exactly_one_agent_holds_an_assignment() {
    let with = |agent: &str, agents: &[(&str, &str)]| {
        let text =
            format!("[[assignment]]\nsite = \"lisbon\"\ntree = \"fedora\"\npath = \"f\"\n{agent}");
        plan_apply(&base(), &request(&[("a.toml", &text)]), &context(agents))
    };
    let named = "agent = \"lisbon-1\"\n";
    let two = [("lisbon-1", "lisbon"), ("lisbon-2", "lisbon")];
    assert!(with("", &two[..1]).is_ok());
    assert!(with(named, &two).is_ok());
    let found = findings(with("", &two));
    assert!(found[0].starts_with("1: ") && found[0].contains("agent = \"lisbon-1\""), "{found:?}");
    let found = findings(with(named, &[("lisbon-2", "lisbon")]));
    assert!(
        found[0].starts_with("5: ") && found[0].contains("did you mean `lisbon-2`?"),
        "{found:?}"
    );
    let found = findings(with(named, &[("lisbon-1", "porto")]));
    assert!(found[0].contains("belongs to site porto"), "{found:?}");
    let warnings = with(named, &[]).unwrap().warnings;
    assert!(warnings[0].contains("mirrorctl invite --role agent --name lisbon-1"), "{warnings:?}");
    // What is stored is not refused because an agent came.
    let other =
        plan_apply(&base(), &request(&[("b.toml", "[[site]]\nname = \"x\"\n")]), &context(&two));
    assert!(other.is_ok());
}
