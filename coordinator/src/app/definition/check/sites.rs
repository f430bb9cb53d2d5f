//! Sites: prefix, zone, windows and rates.

use protocol::{
    calendar::Window,
    name::SiteName,
    path::TreePath,
    spec::{Rate, SiteSpec},
    units::ByteSize,
    v1::definitions::Kind,
};

use super::{Subject, assignments::reserved_component};
use crate::app::definition::{findings::Findings, set::Definitions};

/// Checks the sites of the files.
pub(super) fn check(subject: &Subject<'_>, findings: &mut Findings) {
    for (name, site) in &subject.next.sites {
        if subject.place(Kind::Site, name.as_str()).is_none() {
            continue;
        }
        check_site(site, &mut |key, message| {
            let spot = subject.spot(Kind::Site, name.as_str(), key);
            findings.push(spot, format!("site {name}: {message}"));
        });
    }
    for name in subject.next.sites.keys() {
        if let Some(circle) = circle(subject.next, name) {
            let spot = subject.spot(Kind::Site, name.as_str(), "relay");
            let message = "so none of them would ask a publisher; leave out one of the relays";
            findings.push(
                spot,
                format!("site {name}: its relays go in a circle ({circle}), {message}"),
            );
        }
    }
}

/// The relays from a site back to itself, where they lead there.
fn circle(definitions: &Definitions, name: &SiteName) -> Option<String> {
    let relay = |of: &SiteName| definitions.sites.get(of)?.relay.clone();
    let chain = std::iter::successors(relay(name), relay).take(definitions.sites.len());
    let mut circle = vec![name.to_string()];
    for next in chain {
        circle.push(next.to_string());
        if next == *name {
            return Some(circle.join(" -> "));
        }
    }
    None
}

fn check_site(site: &SiteSpec, refuse: &mut dyn FnMut(&str, String)) {
    if !site.prefix.is_empty() {
        let prefix = &site.prefix;
        match TreePath::parse(prefix.as_bytes()) {
            Err(error) => refuse(
                "prefix",
                format!(
                    "prefix {prefix:?}: {error}; write it relative to the publish directory, as in \"mirror/pub\""
                ),
            ),
            Ok(path) => {
                if let Some(message) = reserved_component(&path) {
                    refuse("prefix", format!("prefix {prefix:?} {message}"));
                }
            }
        }
    }
    if let Some(zone) = &site.timezone
        && !is_known_zone(zone)
    {
        let message = "write a name of the time zone database, as in \"Europe/Lisbon\" or \"UTC\"";
        refuse("timezone", format!("timezone {zone:?} is not known; {message}"));
    }
    for (index, window) in site.bandwidth.iter().enumerate() {
        if let Err(error) = window.when.parse::<Window>() {
            refuse(
                &format!("bandwidth.{index}.when"),
                format!("when = {:?}: {error}", window.when),
            );
        }
        check_rate(window.rate, &format!("bandwidth.{index}.rate"), refuse);
    }
    if let Some(rate) = site.default_rate {
        check_rate(rate, "default-rate", refuse);
    }
}

fn check_rate(rate: Rate, key: &str, refuse: &mut dyn FnMut(&str, String)) {
    if rate == Rate(Some(ByteSize(0))) {
        refuse(key, "a rate of 0 would never end; disable the assignments instead".into());
    }
}

/// Without a database of zones on this host, nothing is known and nothing can be refused.
fn is_known_zone(zone: &str) -> bool {
    let database = jiff::tz::db();
    database.get(zone).is_ok() || database.available().next().is_none()
}
