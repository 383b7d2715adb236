//! Arguments that say with which settings a box flies; shared by `run`, `check` and `settings`.

use std::path::{Path, PathBuf};

use callosity::settings::{Layers, SETTINGS_FILE, SettingsError};

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Settings")]
pub struct Args {
    /// TOML file with the settings of this box; files in FILE.d/ and variables such as CALLOSITY__BROKER__URL win over it
    ///
    /// [default: /etc/callosity/callosity.toml, where there is one]
    #[arg(long, value_name = "FILE", env = "CALLOSITY_SETTINGS")]
    settings: Option<PathBuf>,
    /// Set a key of the settings, such as `broker.keep_alive_seconds=120`; may be given several times. `callosity settings`
    /// lists all keys
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_and_value)]
    set: Vec<(String, String)>,
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or("it is KEY=VALUE, such as broker.keep_alive_seconds=120")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

impl Args {
    /// What file and environment say.
    pub fn layers(&self) -> Result<Layers, SettingsError> {
        let standard = Path::new(SETTINGS_FILE);
        let standard = standard.exists().then_some(standard);
        let layers = match self.settings.as_deref().or(standard) {
            Some(file) => Layers::new().with_file(file)?,
            None => Layers::new(),
        };
        layers.with_environment(std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        }))
    }

    /// Sets the keys that were given one by one.
    pub fn set(&self, layers: &mut Layers) -> Result<(), SettingsError> {
        for (key, value) in &self.set {
            layers.set_text(key, value, "argument --set")?;
        }
        Ok(())
    }
}
