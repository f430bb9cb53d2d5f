//! Files on a disk: scan, delta, pack, plan, stage and switch.
