//! One direction of a line: packets wait for their turn, travel for a while, and arrive in order.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tun_rs::SyncDevice;

use super::Line;

/// A direction, moved by two threads: one takes packets in, one lets them out when they are due.
pub(super) struct Pump {
    line: Mutex<Line>,
    travelling: Mutex<Travelling>,
    arrived: Condvar,
    is_cut: AtomicBool,
    bytes: AtomicU64,
    lost: AtomicU64,
}

#[derive(Default)]
struct Travelling {
    packets: VecDeque<(Instant, Vec<u8>)>,
    is_over: bool,
}

impl Pump {
    /// Moves packets until the devices go away with their namespaces.
    pub(super) fn start(
        from: Arc<SyncDevice>,
        to: Arc<SyncDevice>,
        line: Line,
        seed: u64,
    ) -> Arc<Self> {
        let pump = Arc::new(Self {
            line: Mutex::new(line),
            travelling: Mutex::default(),
            arrived: Condvar::new(),
            is_cut: AtomicBool::new(false),
            bytes: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        });
        let taking = Arc::clone(&pump);
        thread::spawn(move || {
            taking.take_in(&from, seed);
            taking.lock().is_over = true;
            taking.arrived.notify_all();
        });
        let letting = Arc::clone(&pump);
        thread::spawn(move || letting.let_out(&to));
        pump
    }

    pub(super) fn cut(&self, is_cut: bool) {
        self.is_cut.store(is_cut, Ordering::Relaxed);
    }

    pub(super) fn set_line(&self, line: Line) {
        *self.line.lock().unwrap_or_else(PoisonError::into_inner) = line;
    }

    /// Bytes that arrived, and packets that did not.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.bytes.load(Ordering::Relaxed), self.lost.load(Ordering::Relaxed))
    }

    fn take_in(&self, from: &SyncDevice, seed: u64) {
        let mut buffer = vec![0; 65_536];
        let mut chance = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        // When the line is free for the next packet.
        let mut free = Instant::now();
        while let Ok(length) = from.recv(&mut buffer) {
            let line = *self.line.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let turn = free.max(now);
            chance ^= chance << 13;
            chance ^= chance >> 7;
            chance ^= chance << 17;
            let is_lost = (chance >> 11) as f64 / ((1_u64 << 53) as f64) < line.loss;
            if is_lost || turn - now > line.queue || self.is_cut.load(Ordering::Relaxed) {
                self.lost.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let bits = length as f64 * 8.0;
            free = turn + Duration::from_secs_f64(bits / line.bits_per_second as f64);
            self.lock().packets.push_back((free + line.one_way, buffer[..length].to_vec()));
            self.arrived.notify_one();
        }
    }

    fn let_out(&self, to: &SyncDevice) {
        let mut travelling = self.lock();
        loop {
            let Some((due, _)) = travelling.packets.front() else {
                if travelling.is_over {
                    return;
                }
                travelling = self.arrived.wait(travelling).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let wait = due.saturating_duration_since(Instant::now());
            if !wait.is_zero() {
                drop(travelling);
                thread::sleep(wait);
                travelling = self.lock();
                continue;
            }
            let Some((_, packet)) = travelling.packets.pop_front() else { continue };
            drop(travelling);
            // A device that is gone takes nothing; its reader ends this thread.
            if to.send(&packet).is_ok() {
                self.bytes.fetch_add(packet.len() as u64, Ordering::Relaxed);
            }
            travelling = self.lock();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Travelling> {
        self.travelling.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
