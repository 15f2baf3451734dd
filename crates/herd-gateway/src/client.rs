//! One client connection as its parts see it: its task, its stream, its requests and the sweep for time limits.

use std::{
    io,
    net::IpAddr,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use hyper::header::HeaderValue;
use tokio::{
    io::{Interest, Ready},
    net::TcpStream,
    sync::OwnedSemaphorePermit,
    task::unconstrained,
    time::Instant,
};
use tokio_rustls::server::TlsStream;

use crate::{
    GatewayOptions,
    tls::{self, Socket, Wire},
};

/// A coarse clock that one sweep per period moves on, so that requests need not read the time.
#[derive(Debug)]
pub(crate) struct Clock {
    start: Instant,
    /// Milliseconds since `start`, as of the last sweep.
    now: AtomicU32,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { start: Instant::now(), now: AtomicU32::new(0) }
    }

    /// Reads the time, for those who ask between two sweeps.
    pub(crate) fn refresh(&self) {
        // It wraps after 49 days; ages are differences, and wrap with it.
        #[expect(clippy::cast_possible_truncation, reason = "ages are wrapping differences")]
        self.now.store(self.start.elapsed().as_millis() as u32, Relaxed);
    }

    pub(crate) fn now(&self) -> u32 {
        self.now.load(Relaxed)
    }

    /// How long ago `then` was.
    pub(crate) fn age(&self, then: u32) -> Duration {
        Duration::from_millis(self.now().wrapping_sub(then).into())
    }
}

/// What an HTTP/1.1 connection does. Of an HTTP/2 connection it says no more than whether it has requests.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// It waits for the first byte of a request.
    Idle = 0,
    /// It has read some of a request's head. Or it shakes hands, which takes part of the head's time.
    Head = 1,
    /// It has at least one request.
    Busy = 2,
    /// Its last response is complete, but may not be written yet.
    Finishing = 3,
}

/// What its task is to do with a connection.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub(crate) enum Order {
    /// Go on.
    Serve = 0,
    /// Close it after the requests it has.
    Finish = 1,
    /// Close it: nothing is going on.
    CloseIdle = 2,
    /// Answer 408 and close it.
    HeadTimedOut = 3,
    /// Cut it.
    Abort = 4,
}

/// The state of one client connection.
#[derive(Debug)]
pub(crate) struct Client {
    clock: Arc<Clock>,
    /// The client's address as `x-forwarded-for` tells it.
    pub(crate) address: HeaderValue,
    /// The room that this connection takes among all connections.
    _permit: OwnedSemaphorePermit,
    http2: AtomicBool,
    tls: AtomicBool,
    phase: AtomicU8,
    /// When the phase began.
    since: AtomicU32,
    /// When bytes were last read or written.
    last_io: AtomicU32,
    /// Requests that are being answered.
    requests: AtomicU32,
    /// A request waits for more of its body.
    awaits_body: AtomicBool,
    /// The client takes no more bytes for now.
    write_blocked: AtomicBool,
    order: AtomicU8,
    waker: Mutex<Option<Waker>>,
    /// The head of the current request as it came, as far as one can tell.
    head: Mutex<Vec<u8>>,
    /// The client's socket. It is here, and not in the stream that the HTTP connection has, so that one can see that
    /// the client is gone also while nobody reads what it has sent.
    socket: Mutex<Option<Socket>>,
    /// The HTTP connection is done with the socket.
    returned: AtomicBool,
}

impl Client {
    pub(crate) fn new(socket: TcpStream, address: IpAddr, clock: Arc<Clock>, permit: OwnedSemaphorePermit) -> Self {
        let now = clock.now().into();
        Self {
            clock,
            address: address_value(address),
            _permit: permit,
            http2: AtomicBool::new(false),
            tls: AtomicBool::new(false),
            phase: AtomicU8::new(Phase::Idle as u8),
            since: now,
            last_io: AtomicU32::new(0),
            requests: AtomicU32::new(0),
            awaits_body: AtomicBool::new(false),
            write_blocked: AtomicBool::new(false),
            order: AtomicU8::new(Order::Serve as u8),
            waker: Mutex::default(),
            head: Mutex::default(),
            socket: Mutex::new(Some(Socket::Plain(socket))),
            returned: AtomicBool::new(false),
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Relaxed) {
            0 => Phase::Idle,
            1 => Phase::Head,
            2 => Phase::Busy,
            _ => Phase::Finishing,
        }
    }

    fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Relaxed);
        self.since.store(self.clock.now(), Relaxed);
    }

    /// Takes the socket for a handshake, whose time begins now.
    pub(crate) fn begin_handshake(&self) -> Option<TcpStream> {
        self.enter(Phase::Head);
        match self.lock_socket().take()? {
            Socket::Plain(tcp) => Some(tcp),
            Socket::Tls(_) => None,
        }
    }

    /// The handshake is done.
    pub(crate) fn secure(&self, stream: Box<TlsStream<Wire>>) {
        self.tls.store(true, Relaxed);
        // Who chose HTTP/2 begins with its preface, without delay; who did not has no request yet.
        if !tls::speaks_http2(&stream) {
            self.enter(Phase::Idle);
        }
        *self.lock_socket() = Some(Socket::Tls(stream));
    }

    /// The handshake failed, and the client is told.
    pub(crate) fn refuse(&self, socket: TcpStream) {
        *self.lock_socket() = Some(Socket::Plain(socket));
        self.give_back();
    }

    /// Whether the client speaks TLS, and has shaken hands.
    pub(crate) fn is_tls(&self) -> bool {
        self.tls.load(Relaxed)
    }

    /// The scheme of the URIs that lead here, as `x-forwarded-proto` tells it.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.is_tls() { "https" } else { "http" }
    }

    /// The client speaks HTTP/2: its bytes say nothing about phases any more.
    pub(crate) fn set_http2(&self) {
        self.http2.store(true, Relaxed);
        self.enter(Phase::Idle);
    }

    pub(crate) fn is_http2(&self) -> bool {
        self.http2.load(Relaxed)
    }

    /// Bytes came from the client. Up to `limit` of them are remembered if they belong to a request's head.
    pub(crate) fn note_read(&self, bytes: &[u8], limit: usize) {
        self.last_io.store(self.clock.now(), Relaxed);
        if self.is_http2() {
            return;
        }
        match self.phase() {
            Phase::Busy => return,
            Phase::Head => {}
            Phase::Idle | Phase::Finishing => {
                self.enter(Phase::Head);
                self.head().clear();
            }
        }
        let mut head = self.head();
        let room = limit.saturating_sub(head.len());
        head.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// Bytes went to the client, or could not.
    pub(crate) fn note_write(&self, blocked: bool) {
        self.write_blocked.store(blocked, Relaxed);
        if !blocked {
            self.last_io.store(self.clock.now(), Relaxed);
        }
    }

    /// What TLS had left to write went to the client, or could not. That bytes went is noted elsewhere: often there are
    /// none.
    pub(crate) fn note_flush(&self, blocked: bool) {
        self.write_blocked.store(blocked, Relaxed);
    }

    /// All that was to be written is.
    pub(crate) fn note_flushed(&self) {
        if self.phase.load(Relaxed) == Phase::Finishing as u8 {
            self.enter(Phase::Idle);
        }
    }

    /// A request waits for more of its body, or got some.
    pub(crate) fn note_body(&self, awaits: bool) {
        self.awaits_body.store(awaits, Relaxed);
    }

    fn head(&self) -> MutexGuard<'_, Vec<u8>> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the raw head of the request that has just been parsed has a line with this field.
    ///
    /// Bytes that came together with an earlier request are not remembered. The HTTP/1.1 parser drops the
    /// content-length of such a request and closes the connection after it, so nothing can hide behind it.
    pub(crate) fn sent_field(&self, name: &str) -> bool {
        if self.is_http2() {
            return false;
        }
        let head = self.head();
        head.split(|byte| *byte == b'\n')
            .skip_while(|line| line.trim_ascii().is_empty())
            .take_while(|line| !line.trim_ascii().is_empty())
            .filter_map(|line| line.split_at_checked(name.len()))
            .any(|(start, rest)| {
                start.eq_ignore_ascii_case(name.as_bytes()) && rest.trim_ascii_start().starts_with(b":")
            })
    }

    /// Registers the connection's task, once.
    pub(crate) fn register(&self, waker: &Waker) {
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker.clone());
    }

    pub(crate) fn order(&self) -> Order {
        match self.order.load(Relaxed) {
            0 => Order::Serve,
            1 => Order::Finish,
            2 => Order::CloseIdle,
            3 => Order::HeadTimedOut,
            _ => Order::Abort,
        }
    }

    /// Tells the connection's task what to do. A milder order than the one before has no effect.
    pub(crate) fn give(&self, order: Order) {
        if self.order.fetch_max(order as u8, Relaxed) < order as u8
            && let Some(waker) = &*self.waker.lock().unwrap_or_else(PoisonError::into_inner)
        {
            waker.wake_by_ref();
        }
    }

    /// The order has become pointless.
    pub(crate) fn withdraw(&self, order: Order) {
        // If it fails, a stronger one was given meanwhile.
        let _ = self.order.compare_exchange(order as u8, Order::Serve as u8, Relaxed, Relaxed);
    }

    /// Gives the order that a time limit demands, if any.
    pub(crate) fn enforce(&self, options: &GatewayOptions) {
        let age = self.clock.age(self.since.load(Relaxed));
        match self.phase() {
            Phase::Idle if age >= options.idle_timeout => self.give(Order::CloseIdle),
            Phase::Head if age >= options.header_timeout => self.give(Order::HeadTimedOut),
            // The parser notices only when it reads, and it does not while earlier bytes wait to be used.
            Phase::Busy if !self.is_http2() && self.is_gone() => self.give(Order::Abort),
            Phase::Busy | Phase::Finishing if !self.is_http2() => {
                let stalled = self.awaits_body.load(Relaxed) || self.write_blocked.load(Relaxed);
                let still = self.clock.age(self.last_io.load(Relaxed));
                if stalled && options.body_idle_timeout.is_some_and(|limit| still >= limit) {
                    self.give(Order::Abort);
                }
            }
            _ => {}
        }
    }

    /// Does something with the client's socket.
    ///
    /// # Errors
    /// `NotConnected` once it was taken.
    pub(crate) fn with_socket<T>(
        &self,
        act: impl FnOnce(Pin<&mut Socket>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match &mut *self.lock_socket() {
            Some(socket) => {
                let done = act(Pin::new(socket));
                if socket.has_moved() {
                    self.last_io.store(self.clock.now(), Relaxed);
                }
                done
            }
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn lock_socket(&self) -> MutexGuard<'_, Option<Socket>> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the client has closed its side, or the connection broke, whatever there is to read still.
    fn is_gone(&self) -> bool {
        self.readiness(Interest::READABLE).is_read_closed()
    }

    /// Whether the connection broke: nothing that is written arrives any more.
    pub(crate) fn is_cut(&self) -> bool {
        self.readiness(Interest::WRITABLE).is_write_closed()
    }

    /// What the runtime knows of the socket, without asking the system.
    fn readiness(&self, interest: Interest) -> Ready {
        let socket = self.lock_socket();
        let Some(socket) = &*socket else { return Ready::EMPTY };
        // Many are looked at in one go, which is not to use up what the task may do before others get their turn.
        let ready = pin!(unconstrained(socket.tcp().ready(interest)));
        match ready.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(ready)) => ready,
            Poll::Ready(Err(_)) | Poll::Pending => Ready::EMPTY,
        }
    }

    /// The HTTP connection is done with the socket.
    pub(crate) fn give_back(&self) {
        self.returned.store(true, Relaxed);
    }

    /// Closes the socket.
    pub(crate) fn close(&self) {
        self.lock_socket().take();
    }

    /// The socket, if the HTTP connection is done with it and no upgraded connection goes on.
    pub(crate) fn take_back(&self) -> Option<Socket> {
        if !self.returned.load(Relaxed) {
            return None;
        }
        self.lock_socket().take()
    }

    /// A request begins; it ends when what this returns is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> OpenRequest {
        if self.requests.fetch_add(1, Relaxed) == 0 {
            self.last_io.store(self.clock.now(), Relaxed);
            self.enter(Phase::Busy);
        }
        OpenRequest(self.clone())
    }
}

/// An address as `x-forwarded-for` tells it.
pub(crate) fn address_value(address: IpAddr) -> HeaderValue {
    HeaderValue::try_from(address.to_canonical().to_string()).expect("an address makes a field value")
}

/// Keeps a client connection busy for as long as it has a request.
#[derive(Debug)]
pub(crate) struct OpenRequest(Arc<Client>);

impl OpenRequest {
    pub(crate) fn client(&self) -> &Client {
        &self.0
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        if self.0.requests.fetch_sub(1, Relaxed) == 1 {
            self.0.note_body(false);
            // What comes next may have been read already; then its head is not known, and this one is not it.
            self.0.head().clear();
            self.0.enter(Phase::Finishing);
        }
    }
}
