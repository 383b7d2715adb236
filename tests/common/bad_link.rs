//! A link between client and broker that can be made slow, cut, or left half-open.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

/// What the link does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Link {
    /// Passes everything on at once.
    Good,
    /// Bytes a second in each direction, after a delay.
    Thin { rate: f64, delay: Duration },
    /// Connections stand, and nothing comes through: a mast that was lost, a NAT that forgot.
    HalfOpen,
    /// Connections end, and no new one is taken.
    Cut,
}

pub struct BadLink {
    pub port: u16,
    set: Arc<watch::Sender<Link>>,
}

impl BadLink {
    /// A good link to a port of this machine.
    pub async fn to(port: u16) -> Self {
        Self::at(Ipv4Addr::LOCALHOST, port).await
    }

    /// A good link from one of this machine's addresses to a port that only this machine reaches.
    pub async fn at(address: Ipv4Addr, port: u16) -> Self {
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let here = listener.local_addr().unwrap().port();
        let (set, link) = watch::channel(Link::Good);
        let accepted = link.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                if *accepted.borrow() == Link::Cut {
                    continue;
                }
                let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else {
                    continue;
                };
                let link = accepted.clone();
                tokio::spawn(async move {
                    let (near_read, near_write) = near.into_split();
                    let (far_read, far_write) = far.into_split();
                    tokio::select! {
                        () = pass(near_read, far_write, link.clone()) => {}
                        () = pass(far_read, near_write, link) => {}
                    }
                });
            }
        });
        Self {
            port: here,
            set: Arc::new(set),
        }
    }

    pub fn becomes(&self, link: Link) {
        self.set.send_replace(link);
    }
}

async fn pass(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut link: watch::Receiver<Link>,
) {
    let mut bytes = [0; 256];
    loop {
        let now = *link.borrow_and_update();
        match now {
            Link::Cut => return,
            Link::HalfOpen => {
                let _ = link.changed().await;
                continue;
            }
            Link::Good | Link::Thin { .. } => {}
        }
        let read = tokio::select! {
            read = from.read(&mut bytes) => read,
            _ = link.changed() => continue,
        };
        let Ok(count @ 1..) = read else {
            return;
        };
        if let Link::Thin { rate, delay } = now {
            // A packet of few bytes ends a burst: what follows waits for an answer and pays the delay again.
            sleep(Duration::from_secs_f64(count as f64 / rate)).await;
            if count < bytes.len() {
                sleep(delay).await;
            }
        }
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}
