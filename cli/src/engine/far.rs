//! Engines on other machines, reached as docker reaches them: by TLS, or by the user's own ssh.
//!
//! ```text
//!   client ─┬─ TLS ─► tcp://HOST:PORT
//!           └─ ssh HOST docker system dial-stdio      one process a connection
//! ```

use std::ffi::CStr;
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bollard::errors::Error as BollardError;
use bollard::{BollardRequest, ClientVersion, Docker};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kube::client::ConfigExt;
use kube::config::AuthInfo;
use nix::sys::memfd::{MFdFlags, memfd_create};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use super::endpoint::Tls;

/// Seconds that an ssh server may take to be there, as docker has it.
const SSH_TIMEOUT: u64 = 30;
/// What an answer begins with.
const HTTP: &[u8] = b"HTTP/";
/// How much of another one is told.
const LONGEST: usize = 500;
/// The file of what ssh complains of.
const WORDS: &CStr = c"ssh";
/// What a request names as its host; whoever it goes to is known otherwise.
const NOBODY: &str = "http://docker";

/// A way to an engine that is not a plain socket.
#[derive(Debug, Clone)]
pub enum Way {
    /// A TLS connection.
    Tls {
        /// `HOST:PORT`.
        address: String,
        /// Who may be there, and who we are.
        connector: Box<Identity>,
    },
    /// Standard streams of a process: the words behind `ssh`.
    Ssh(Vec<String>),
}

/// What both sides of a TLS connection show.
#[derive(Clone)]
pub struct Identity {
    connector: TlsConnector,
    server: ServerName<'static>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({:?})", self.server)
    }
}

impl Way {
    /// To `HOST:PORT`, with certificates from files.
    ///
    /// # Errors
    /// In words: a file that cannot be read or is none.
    pub fn tls(address: &str, tls: &Tls) -> Result<Self, String> {
        let (host, _) = address.rsplit_once(':').unwrap_or((address, ""));
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let server = ServerName::try_from(host).map_err(|error| error.to_string())?;
        let uri = http::Uri::from_static(NOBODY);
        let mut config = kube::Config::new(uri);
        config.accept_invalid_certs = !tls.verify;
        config.root_cert = match &tls.ca {
            Some(file) if tls.verify => Some(certificates(file)?),
            _ => None,
        };
        let text = |file: &PathBuf| file.to_string_lossy().into_owned();
        config.auth_info = AuthInfo {
            client_certificate: tls.cert.as_ref().map(text),
            client_key: tls.key.as_ref().map(text),
            ..AuthInfo::default()
        };
        // What kube makes of certificates is what an engine wants as well.
        let client = config.rustls_client_config().map_err(|error| error.to_string())?;
        let connector = TlsConnector::from(Arc::new(client));
        let identity = Box::new(Identity { connector, server });
        Ok(Self::Tls { address: address.to_owned(), connector: identity })
    }

    /// By the program `ssh`, to what stands behind `ssh://`; nothing if that names no host.
    pub fn ssh(place: &str) -> Option<Self> {
        let (place, socket) = match place.split_once('/') {
            Some((place, "")) => (place, None),
            Some((place, socket)) => (place, Some(socket)),
            None => (place, None),
        };
        let (user, place) = match place.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, place),
        };
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
            _ => (place, None),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || port.is_some_and(|port| port.parse::<u16>().is_err()) {
            return None;
        }
        let mut words = vec!["-o".to_owned(), format!("ConnectTimeout={SSH_TIMEOUT}"), "-T".into()];
        for (flag, value) in [("-l", user), ("-p", port)] {
            words.extend(value.into_iter().flat_map(|value| [flag.to_owned(), value.to_owned()]));
        }
        words.extend(["--", host, "docker"].map(str::to_owned));
        words.extend(socket.map(|socket| format!("--host=unix:///{socket}")));
        words.extend(["system", "dial-stdio"].map(str::to_owned));
        Some(Self::Ssh(words))
    }

    /// A client that goes it.
    pub fn client(self, timeout: u64, version: &ClientVersion) -> Result<Docker, BollardError> {
        let last_words = LastWords::default();
        let complaints = last_words.clone();
        let connect = tower::service_fn(move |_: http::Uri| {
            let (way, last_words) = (self.clone(), last_words.clone());
            Box::pin(async move { way.connect(last_words).await.map(TokioIo::new) })
        });
        let client = Client::builder(TokioExecutor::new()).build(connect);
        let transport = move |request: BollardRequest| {
            let (answer, complaints) = (client.request(request), complaints.clone());
            async move {
                // Of a connection that ends at once, the client says no more than that.
                answer.await.map_err(|error| match lock(&complaints).take() {
                    Some(words) => io::Error::other(words).into(),
                    None => BollardError::from(error),
                })
            }
        };
        Docker::connect_with_custom_transport(transport, Some(NOBODY), timeout, version)
    }

    async fn connect(&self, last_words: LastWords) -> io::Result<Wire> {
        match self {
            Self::Tls { address, connector } => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                let Identity { connector, server } = connector.as_ref();
                Ok(Wire(Box::pin(connector.connect(server.clone(), stream).await?)))
            }
            Self::Ssh(words) => {
                let process =
                    Process::start(words, last_words).map_err(|error| match error.kind() {
                        io::ErrorKind::NotFound => {
                            io::Error::other("there is no ssh command in PATH")
                        }
                        _ => error,
                    })?;
                Ok(Wire(Box::pin(process)))
            }
        }
    }
}

fn certificates(file: &Path) -> Result<Vec<Vec<u8>>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let pem = fs::read(file).map_err(|error| failed(&error))?;
    let all = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let all = all.map_err(|error| failed(&error))?;
    match all.is_empty() {
        true => Err(failed(&"there is no certificate in it")),
        false => Ok(all.into_iter().map(|certificate| certificate.to_vec()).collect()),
    }
}

trait Duplex: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Duplex for T {}

/// One connection.
struct Wire(Pin<Box<dyn Duplex>>);

impl Connection for Wire {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_read(cx, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.as_mut().poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_shutdown(cx)
    }
}

/// Why a process ended without an answer.
type LastWords = Arc<Mutex<Option<String>>>;

fn lock(words: &LastWords) -> MutexGuard<'_, Option<String>> {
    words.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A program whose standard streams are a connection; it ends with this.
struct Process {
    _child: Child,
    /// Closed by itself: the far side waits for that.
    input: Option<ChildStdin>,
    output: ChildStdout,
    /// What it complains of.
    words: File,
    heard: bool,
    last_words: LastWords,
}

impl Process {
    fn start(words: &[String], last_words: LastWords) -> io::Result<Self> {
        let said = File::from(memfd_create(WORDS, MFdFlags::MFD_CLOEXEC)?);
        let mut child = Command::new("ssh")
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(said.try_clone()?)
            .kill_on_drop(true)
            .spawn()?;
        let missing = || io::Error::other("a pipe is missing");
        let output = child.stdout.take().ok_or_else(missing)?;
        let input = child.stdin.take();
        Ok(Self { _child: child, input, output, words: said, heard: false, last_words })
    }

    /// Keeps what it said in the place of an answer, and what it complained of.
    fn complain(&mut self, said: &str) {
        let mut text = said.to_owned();
        let _ = self.words.rewind().and_then(|()| self.words.read_to_string(&mut text));
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let said = lines.collect::<Vec<_>>().join(": ");
        let said = if said.is_empty() { "ssh ended without a word".to_owned() } else { said };
        *lock(&self.last_words) = Some(said);
    }
}

impl AsyncRead for Process {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.output).poll_read(cx, buffer))?;
        let new = &buffer.filled()[before..];
        if !self.heard && !new.starts_with(HTTP) {
            let words = String::from_utf8_lossy(&new[..new.len().min(LONGEST)]).into_owned();
            self.complain(&words);
        }
        self.heard = true;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Process {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.input {
            Some(input) => Pin::new(input).poll_write(cx, bytes),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.input {
            Some(input) => Pin::new(input).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.input = None;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(place: &str) -> Option<String> {
        match Way::ssh(place)? {
            Way::Ssh(words) => Some(words[3..].join(" ")),
            Way::Tls { .. } => None,
        }
    }

    #[test]
    fn ssh_is_called_as_docker_calls_it() {
        let line = |place: &str| line(place).unwrap_or_default();
        assert_eq!(line("box"), "-- box docker system dial-stdio");
        assert_eq!(line("me@box:2222"), "-l me -p 2222 -- box docker system dial-stdio");
        assert_eq!(line("[fe80::1]:22/"), "-p 22 -- fe80::1 docker system dial-stdio");
        assert_eq!(
            line("-x/run/d.sock"),
            "-- -x docker --host=unix:///run/d.sock system dial-stdio"
        );
        assert_eq!(line("me@"), "");
        assert_eq!(line("box:ssh"), "");
    }

    #[test]
    fn certificates_that_are_none_are_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let ca = folder.path().join("ca.pem");
        let tls = Tls { ca: Some(ca.clone()), cert: None, key: None, verify: true };
        let error = |tls: &Tls| Way::tls("box:2376", tls).expect_err("no certificates");
        assert!(error(&tls).ends_with("ca.pem: No such file or directory (os error 2)"));
        fs::write(&ca, "x").expect("written");
        assert!(error(&tls).ends_with("ca.pem: there is no certificate in it"));
        assert!(Way::tls("box:2376", &Tls { verify: false, ..tls }).is_ok());
    }
}
