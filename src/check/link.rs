use std::net::TcpListener;
use std::time::{Duration, Instant};

use link::BrokerOptions;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event};
use tokio::time::timeout;

use super::{Finding, in_words};
use crate::settings::{self, Loaded};

const BROKER: &str = "broker";

pub(super) fn broker(loaded: &Loaded, tell: &mut dyn FnMut(Finding)) {
    let settings::Link { broker, platform } = match loaded.link() {
        Ok(link) => link,
        Err(error) => {
            tell(Finding::settings(BROKER, &error));
            return;
        }
    };
    let address = broker.address.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let begun = Instant::now();
    let greeted = match runtime {
        Ok(runtime) => runtime.block_on(greet(broker, &format!("check-{platform}"))),
        Err(error) => Err(error.to_string()),
    };
    tell(match greeted {
        Ok(()) => {
            let how = if address.tls {
                "its certificate is trusted"
            } else {
                "not encrypted"
            };
            let ms = begun.elapsed().as_millis();
            let found = format!("{address} took {platform} in after {ms} ms; {how}");
            if address.tls || address.host == "127.0.0.1" || address.host == "localhost" {
                Finding::ok(BROKER, found)
            } else {
                Finding::attention(
                    BROKER,
                    found,
                    "use mqtts:// where the link is not the aircraft's own",
                )
            }
        }
        // It flies without: what is decided waits in the outbox.
        Err(reason) => Finding::attention(
            BROKER,
            reason,
            "one can fly without, for everything waits on the disk; mend broker.* for the ground to hear it",
        ),
    });
}

/// Connects and leaves again.
async fn greet(broker: BrokerOptions, client_id: &str) -> Result<(), String> {
    let patience = broker.timing.connect_timeout.min(Duration::from_secs(15));
    let (client, mut events) = AsyncClient::new(broker.client(client_id), 8);
    let welcome = async {
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => return Ok(()),
                Ok(_) => {}
                Err(error) => return Err(in_words(&broker.explain(error))),
            }
        }
    };
    let welcomed = timeout(patience, welcome).await.unwrap_or_else(|_| {
        let seconds = patience.as_secs();
        Err(format!(
            "{} did not answer within {seconds} s",
            broker.address
        ))
    });
    if welcomed.is_ok() && client.disconnect().await.is_ok() {
        // The farewell leaves with the next turn.
        let _ = timeout(Duration::from_secs(1), events.poll()).await;
    }
    welcomed
}

pub(super) fn page(loaded: &Loaded, tell: &mut dyn FnMut(Finding)) {
    const PART: &str = "page";
    match loaded.page() {
        Ok(None) => {
            let to_do = "set page.address, so that observers see cameras and sightings";
            tell(Finding::attention(PART, "there is none", to_do));
        }
        Ok(Some(page)) => tell(match TcpListener::bind(page.address) {
            Ok(_) => {
                let who = if page.token.is_some() {
                    ", for this machine and who has the token"
                } else {
                    ", for this machine alone"
                };
                Finding::ok(PART, format!("it will be at http://{}{who}", page.address))
            }
            Err(e) => {
                let found = format!("it cannot be at {}: {e}", page.address);
                Finding::fault(PART, found, "set page.address to a port that is free")
            }
        }),
        Err(error) => tell(Finding::settings(PART, &error)),
    }
}
