use std::fs;
use std::time::Duration;

use jiff::Timestamp;

use super::TimeSource;

/// The clocks of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl TimeSource for SystemClock {
    fn wall(&self) -> Timestamp {
        Timestamp::now()
    }

    #[cfg(target_os = "linux")]
    fn monotonic(&self) -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
    }

    #[cfg(not(target_os = "linux"))]
    fn monotonic(&self) -> Duration {
        use std::sync::OnceLock;
        use std::time::Instant;
        static BEGINNING: OnceLock<Instant> = OnceLock::new();
        BEGINNING.get_or_init(Instant::now).elapsed()
    }

    /// As the kernel's clock discipline says (`adjtimex`, which chrony, ntpd and systemd-timesyncd tell).
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    fn is_synchronised(&self) -> bool {
        // SAFETY: timex is plain numbers, for which zero is a value.
        let mut state: libc::timex = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes into the struct it is given; with modes of 0 it changes nothing else.
        let clock = unsafe { libc::adjtimex(&raw mut state) };
        clock >= 0 && clock != libc::TIME_ERROR && state.status & libc::STA_UNSYNC == 0
    }

    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    fn is_synchronised(&self) -> bool {
        false
    }

    fn boot(&self) -> Option<String> {
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(id.trim().to_owned())
    }
}
