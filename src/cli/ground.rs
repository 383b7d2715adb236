use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use callosity::settings::default_state;
use callosity::share_without_locks;
use clap::ValueEnum;
use ground::catalogue::Catalogue;
use ground::station::Station;
use ground::store::{Role, Store};
use ground::web::{Access, serve};
use ground::{Listener, Receiver};
use link::broker::{Credentials, pauses};
use link::{BrokerAddress, BrokerOptions};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{ground_enroll, ground_export, ground_import, interrupt};

/// Where the page is, unless somebody says otherwise.
pub const PAGE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8460);

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Invited {
    /// Sees everything but accounts
    Observer,
    /// Decides on sightings too
    Reviewer,
    /// Invites others too
    Administrator,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Take what an aircraft's archive has and the link lost: messages, pictures of heads, corrected times
    Import(ground_import::Args),
    /// Teach a bundle an animal that reviewers named, from the pictures that they confirmed
    Enroll(ground_enroll::Args),
    /// Show what a bundle says of the stored sightings, before anyone flies with it
    Compare(ground_enroll::CompareArgs),
    /// Write what reviewers decided as a data set that `callosity-train import` reads
    ExportTraining(ground_export::Args),
}

/// Where a ground station keeps what it has. Each folder belongs to one program at a time.
#[derive(clap::Args)]
pub struct Kept {
    /// Folder for the database and the pictures, on a disk of this machine
    /// [default: $STATE_DIRECTORY, as systemd sets it, or ~/.local/state/callosity-ground]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// postgres://USER@HOST/DATABASE instead of an SQLite file in --data; pictures stay in --data
    #[arg(
        long,
        value_name = "URL",
        env = "CALLOSITY_DATABASE",
        hide_env_values = true
    )]
    database: Option<String>,
}

impl Kept {
    /// In a folder, without another database.
    pub fn in_folder(data: PathBuf) -> Self {
        Self {
            data: Some(data),
            database: None,
        }
    }

    /// Opens it.
    pub async fn open(&self) -> anyhow::Result<Store> {
        let data = self.data.clone().map_or_else(data_folder, Ok)?;
        refuse_network_share(&data)?;
        Ok(Store::open(&data, self.database.as_deref()).await?)
    }
}

/// Receive sightings from aircraft, store them, and show them to those who decide who it is.
///
/// What arrives is on the disk, in --data, before it is acknowledged: a kill or a loss of power loses nothing. Aircraft send
/// to this program itself (their --broker is its --mqtt-listen), or to an MQTT broker that it listens to (--broker), which
/// keeps what comes while this program is away.
///
/// The page is at http://127.0.0.1:8460. At the first start a link is printed by which the first administrator chooses a name
/// and a password; it is good once, for a day.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// MQTT 5 broker: mqtt://HOST[:PORT], with TLS mqtts://HOST[:PORT], as WebSocket ws:// or wss://HOST[:PORT]/PATH
    /// [default: none; aircraft send to --mqtt-listen]
    #[arg(long, value_name = "URL")]
    broker: Option<BrokerAddress>,
    /// Where aircraft send to this program itself, by MQTT 5 without password or TLS: anything but this machine's own
    /// address lets everybody there send
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:1883",
        conflicts_with = "broker"
    )]
    mqtt_listen: SocketAddr,
    /// PEM file with the certificate authorities that may vouch for the broker
    /// [default: those that this system trusts]
    #[arg(long, value_name = "FILE", requires = "broker")]
    ca: Option<PathBuf>,
    /// PEM file with the certificate that shows the broker who we are
    #[arg(long, value_name = "FILE", requires_all = ["broker", "client_key"])]
    client_certificate: Option<PathBuf>,
    /// PEM file with the private key of --client-certificate
    #[arg(long, value_name = "FILE", requires = "client_certificate")]
    client_key: Option<PathBuf>,
    /// User name at the broker; the password comes from CALLOSITY_MQTT_PASSWORD or --password-file
    #[arg(long, value_name = "NAME", requires = "broker")]
    username: Option<String>,
    /// File whose first line is the password
    #[arg(long, value_name = "FILE", requires = "username")]
    password_file: Option<PathBuf>,
    /// Name of our session at the broker, which keeps what comes while we are away; each ground station needs its own
    #[arg(long, value_name = "NAME", default_value = "callosity-ground")]
    session: String,
    #[command(flatten)]
    kept: Kept,
    /// Folder with reference photographs: in it a folder for each animal, with its name
    #[arg(long, value_name = "DIR")]
    catalogue: Option<PathBuf>,
    /// Where the page is
    #[arg(long, value_name = "ADDRESS", default_value_t = PAGE)]
    listen: SocketAddr,
    /// A proxy in front of the page speaks TLS: browsers then keep the session from everybody else
    #[arg(long)]
    https: bool,
    /// Print a link by which somebody gets an account, once
    #[arg(long, value_name = "ROLE")]
    invite: Option<Invited>,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Some(Command::Import(args)) => return ground_import::run(&args),
        Some(Command::Enroll(args)) => return ground_enroll::run(&args),
        Some(Command::Compare(args)) => return ground_enroll::compare(&args),
        Some(Command::ExportTraining(args)) => return ground_export::run(&args),
        None => {}
    }
    let stop = interrupt::install()?;
    let runtime = runtime()?;
    let heard = match args.broker {
        Some(address) => {
            let credentials = Credentials::gather(args.username, args.password_file.as_deref())?;
            let mut broker = BrokerOptions::new(address, credentials, args.ca.as_deref())?;
            if let (Some(certificate), Some(key)) = (&args.client_certificate, &args.client_key) {
                broker = broker.with_client_certificate(certificate, key)?;
            }
            Heard::Broker {
                broker,
                session: args.session,
            }
        }
        None => Heard::Aircraft(runtime.block_on(listen(args.mqtt_listen))?),
    };
    let ground = Ground {
        heard,
        kept: args.kept,
        catalogue: args.catalogue,
        access: Access::Accounts { https: args.https },
    };
    runtime.block_on(async {
        let station = ground.open().await?;
        let listener = TcpListener::bind(args.listen).await;
        let listener = listener.with_context(|| format!("cannot listen on {}: name another address with --listen", args.listen))?;
        let page = address_of(&listener)?;
        println!("the page is at {page}");
        if let Heard::Aircraft(listener) = &ground.heard {
            println!("aircraft send to mqtt://{}", listener.address());
        }
        if !args.listen.ip().is_loopback() && !args.https {
            warn!("passwords cross the network readable: have a proxy speak TLS in front of the page, and say --https");
        }
        invite(&station, args.invite, &page).await?;
        ground.serve(station, listener, &stop).await
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Prints a link to an account where one is asked for, or where nobody has one.
async fn invite(station: &Station, invited: Option<Invited>, page: &str) -> anyhow::Result<()> {
    let role = match invited {
        Some(Invited::Observer) => Role::Observer,
        Some(Invited::Reviewer) => Role::Reviewer,
        Some(Invited::Administrator) => Role::Administrator,
        None if station.store.accounts().await?.is_empty() => Role::Administrator,
        None => return Ok(()),
    };
    let invitation = station.store.invite(role).await?;
    println!(
        "good once, for a day: {page}/#invitation={}",
        invitation.token
    );
    Ok(())
}

/// How aircraft are heard.
pub enum Heard {
    /// Over a broker, in a session of this name.
    Broker {
        broker: BrokerOptions,
        session: String,
    },
    /// Directly.
    Aircraft(Listener),
}

impl Heard {
    /// Until it is asked to stop, or the broker refuses for good.
    async fn receive(self, station: &Arc<Station>, stop: &CancellationToken) -> anyhow::Result<()> {
        let (broker, session) = match self {
            Self::Broker { broker, session } => (broker, session),
            Self::Aircraft(listener) => {
                station.receive_until(listener, stop.cancelled()).await;
                return Ok(());
            }
        };
        let mut pause = pauses();
        let receiver = loop {
            let connected = tokio::select! {
                connected = Receiver::connect(broker.clone(), &session) => connected,
                () = stop.cancelled() => return Ok(()),
            };
            match connected {
                Ok(receiver) => break receiver,
                Err(e) if e.is_permanent() => bail!(e),
                Err(e) => warn!("{e}; it is tried again"),
            }
            if let Some(pause) = pause.next() {
                tokio::select! {
                    () = sleep(pause) => {}
                    () = stop.cancelled() => return Ok(()),
                }
            }
        };
        info!("connected to {}", broker.address);
        station.receive_until(receiver, stop.cancelled()).await;
        Ok(())
    }
}

/// Hears aircraft at an address.
async fn listen(address: SocketAddr) -> anyhow::Result<Listener> {
    Listener::start(address).await.with_context(|| {
        format!(
            "aircraft cannot send to {address}: name another address with --mqtt-listen, or a broker with --broker"
        )
    })
}

/// A ground station that is to be opened.
pub struct Ground {
    pub heard: Heard,
    pub kept: Kept,
    pub catalogue: Option<PathBuf>,
    pub access: Access,
}

impl Ground {
    /// Opens what it keeps.
    pub async fn open(&self) -> anyhow::Result<Arc<Station>> {
        let store = self.kept.open().await?;
        let catalogue = match &self.catalogue {
            Some(folder) => Catalogue::open(folder)?,
            None => Catalogue::default(),
        };
        Ok(Station::new(store, catalogue).await?)
    }

    /// Receives and answers until it is asked to stop.
    pub async fn serve(
        self,
        station: Arc<Station>,
        listener: TcpListener,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        let answer = serve(listener, station.clone(), self.access);
        let served = tokio::select! {
            answered = answer => answered.context("the page ends"),
            received = self.heard.receive(&station, stop) => received,
        };
        station.store.close().await;
        served
    }
}

/// What a ground station runs on.
pub fn runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the ground station")
}

/// As a browser on this machine reaches it.
pub fn address_of(listener: &TcpListener) -> anyhow::Result<String> {
    let mut address = listener.local_addr()?;
    if address.ip().is_unspecified() {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    Ok(format!("http://{address}"))
}

/// SQLite's locks do not hold there what they promise.
fn refuse_network_share(data: &Path) -> anyhow::Result<()> {
    match std::fs::create_dir_all(data) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => {
            return Err(e).with_context(|| format!("cannot make the folder {}", data.display()));
        }
        _ => {}
    }
    if let Some(kind) = share_without_locks(data) {
        bail!(
            "{} is on {kind}, where a database is not safe: name a folder on a disk of this machine with --data",
            data.display()
        );
    }
    Ok(())
}

/// Where it is kept when nobody says where.
fn data_folder() -> anyhow::Result<PathBuf> {
    default_state("callosity-ground").context("there is no home folder: name a folder with --data")
}
