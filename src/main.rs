//! The program `callosity`: what flies, what receives, and what looks at photographs on disk.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    spare_memory();
    cli::main()
}

/// Has the C library give large blocks back to the system as soon as they are free, and keep small ones in one
/// place for all threads.
///
/// By itself it raises the size from which it does so with each block that it gives back (to 32 MiB, for
/// each thread), and then keeps what the largest frames took: a third more memory in all, for a few
/// hundredths of the time. Places for each thread take 4 % more, and no less time.
fn spare_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        /// Where it starts from (`man mallopt`).
        const BYTES: libc::c_int = 128 * 1024;
        // SAFETY: takes two numbers each; where it refuses them nothing changes.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, BYTES);
            libc::mallopt(libc::M_ARENA_MAX, 1);
        }
    }
}
