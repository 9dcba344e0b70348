//! `hyperflow-operator check`: whether an installation works, asked from a pod beside it. `helm test` runs it, because
//! there is no shell in the images.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    thread::sleep,
    time::{Duration, Instant},
};

use crate::settings::Check;

/// Longest time for one step of a question: connecting, writing, reading.
const STEP: Duration = Duration::from_secs(2);
/// Pause between two rounds.
const PAUSE: Duration = Duration::from_millis(500);
/// Most of an answer that is read: five lines of metrics for each job are far less.
const LONGEST: u64 = 64 << 20;

/// The installation does not work.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// No name, or no replica behind it.
    #[error("cannot find a replica of the operator at '{address}': see whether its pods run, and whether DNS works")]
    Nobody {
        /// What was looked up.
        address: String,
        /// Why not; nothing when the name is there but empty.
        #[source]
        source: Option<io::Error>,
    },
    /// A replica does not answer.
    #[error("cannot ask replica '{replica}' for {path}: see its log, and network policies")]
    Silent {
        /// Which.
        replica: SocketAddr,
        /// What was asked for.
        path: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A replica says that it cannot work yet.
    #[error("replica '{replica}' is not ready: {says}")]
    Unready {
        /// Which.
        replica: SocketAddr,
        /// Its own words.
        says: String,
    },
    /// All are ready, and none of them leads.
    #[error("{replicas} replicas are ready and none leads: see their logs, and their right to the Lease")]
    Leaderless {
        /// How many.
        replicas: usize,
    },
}

/// Asks until every replica is ready and one leads, or the time is over; how many replicas there are.
///
/// # Errors
/// With what was wrong in the last round.
pub fn run(check: &Check) -> Result<usize, CheckError> {
    let deadline = Instant::now() + Duration::from_secs(check.within_seconds);
    loop {
        match find(&check.address).and_then(|replicas| ask(&replicas)) {
            Err(_wrong) if Instant::now() < deadline => sleep(PAUSE),
            outcome => return outcome,
        }
    }
}

fn find(address: &str) -> Result<Vec<SocketAddr>, CheckError> {
    let nobody = |source| CheckError::Nobody { address: address.into(), source };
    let replicas: Vec<_> = address.to_socket_addrs().map_err(|error| nobody(Some(error)))?.collect();
    if replicas.is_empty() { Err(nobody(None)) } else { Ok(replicas) }
}

fn ask(replicas: &[SocketAddr]) -> Result<usize, CheckError> {
    let mut led = false;
    for replica in replicas {
        let (code, says) = get(*replica, "/readyz")?;
        if code != "200" {
            return Err(CheckError::Unready { replica: *replica, says: says.trim().into() });
        }
        let (_, metrics) = get(*replica, "/metrics")?;
        led |= metrics.lines().any(|line| line == "hyperflow_leader 1");
    }
    if led { Ok(replicas.len()) } else { Err(CheckError::Leaderless { replicas: replicas.len() }) }
}

/// Code and body of an answer. HTTP/1.0: whoever answers closes the connection at the end, and nothing is chunked.
fn get(replica: SocketAddr, path: &'static str) -> Result<(String, String), CheckError> {
    let answer = || -> io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&replica, STEP)?;
        stream.set_read_timeout(Some(STEP))?;
        stream.set_write_timeout(Some(STEP))?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {replica}\r\n\r\n").as_bytes())?;
        let mut text = String::new();
        stream.take(LONGEST).read_to_string(&mut text)?;
        Ok(text)
    };
    let text = answer().map_err(|source| CheckError::Silent { replica, path, source })?;
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    Ok((head.split(' ').nth(1).unwrap_or_default().into(), body.into()))
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    /// A replica that answers two questions: how ready it is, and what it counts.
    fn replica(ready: &'static str, leader: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().take(2) {
                let mut stream = stream.unwrap();
                let mut asked = [0; 1024];
                let length = stream.read(&mut asked).unwrap();
                let asked = String::from_utf8_lossy(&asked[..length]).into_owned();
                let page = if asked.starts_with("GET /readyz ") { ready } else { leader };
                stream.write_all(page.as_bytes()).unwrap();
            }
        });
        address
    }

    const READY: &str = "HTTP/1.0 200 OK\r\n\r\nok\n";
    const UNREADY: &str = "HTTP/1.0 503 Service Unavailable\r\n\r\nsessions are not accepted yet\n";
    const LEADS: &str = "HTTP/1.0 200 OK\r\n\r\n# TYPE hyperflow_leader gauge\nhyperflow_leader 1\n";
    const FOLLOWS: &str = "HTTP/1.0 200 OK\r\n\r\n# TYPE hyperflow_leader gauge\nhyperflow_leader 0\n";

    #[test]
    fn all_ready_and_one_leading_is_an_installation() {
        assert_eq!(ask(&[replica(READY, FOLLOWS), replica(READY, LEADS)]).unwrap(), 2);
    }

    #[test]
    fn nobody_leading_is_none() {
        let error = ask(&[replica(READY, FOLLOWS)]).unwrap_err();
        assert!(matches!(error, CheckError::Leaderless { replicas: 1 }), "{error}");
    }

    #[test]
    fn one_that_is_not_ready_is_named_with_its_own_words() {
        let bad = replica(UNREADY, LEADS);
        let error = ask(&[replica(READY, LEADS), bad]).unwrap_err();
        assert_eq!(error.to_string(), format!("replica '{bad}' is not ready: sessions are not accepted yet"));
    }

    #[test]
    fn one_that_is_gone_is_named() {
        let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = ask(&[gone]).unwrap_err();
        assert!(error.to_string().starts_with(&format!("cannot ask replica '{gone}' for /readyz")), "{error}");
    }

    #[test]
    fn a_name_without_replicas_is_told_in_time() {
        let check = Check { address: "no-such-service.invalid:8080".into(), within_seconds: 0 };
        assert!(matches!(run(&check).unwrap_err(), CheckError::Nobody { source: Some(_), .. }));
    }
}
