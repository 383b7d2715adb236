use std::io;
use std::net::Ipv4Addr;
use std::sync::mpsc;
use std::thread;

use ::ground::{Commands, Listener, Received};
use link::BrokerAddress;

/// Most messages that are taken at once.
const TOGETHER: usize = 64;

/// What a ground station inside this process hears from aircraft, which send to it directly, and what it asks of them.
pub struct VirtualGround {
    address: BrokerAddress,
    heard: mpsc::Receiver<Received>,
    commands: Commands,
}

impl VirtualGround {
    /// One that keeps nothing: it acknowledges each message, on a free port of the loopback interface. It lives until the
    /// process ends.
    ///
    /// # Errors
    /// There is no free port or thread.
    pub fn start() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let mut listener = runtime.block_on(Listener::start((Ipv4Addr::LOCALHOST, 0).into()))?;
        let ground = Self::beside(&mut listener);
        thread::Builder::new()
            .name("virtual-ground".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    loop {
                        listener.next_several(TOGETHER).await;
                    }
                });
            })?;
        Ok(ground)
    }

    /// What a listener hears that somebody else asks for messages.
    pub fn beside(listener: &mut Listener) -> Self {
        Self {
            address: BrokerAddress::loopback(listener.address().port()),
            heard: listener.overhear(),
            commands: listener.commands(),
        }
    }

    /// Where aircraft send.
    pub fn address(&self) -> BrokerAddress {
        self.address.clone()
    }

    /// What aircraft say, in its order.
    pub fn heard(&self) -> &mpsc::Receiver<Received> {
        &self.heard
    }

    /// What asks aircraft to set something.
    pub fn commands(&self) -> &Commands {
        &self.commands
    }
}
