//! Progress of long work on the terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar for `count` of `what`, with rate and time left; shown where standard error is a terminal.
pub fn progress_bar(what: &str, count: usize) -> ProgressBar {
    let template = format!("{what} {{bar:40}} {{pos}}/{{len}} {{per_sec}} {{eta}} left");
    let style = ProgressStyle::with_template(&template).expect("the template is well formed");
    ProgressBar::new(count as u64).with_style(style)
}
