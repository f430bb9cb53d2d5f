//! The whole network, as real processes, against real rsync, proxies and databases.

mod packaging;
