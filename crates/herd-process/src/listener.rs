//! Who listens on a TCP port: the worker or somebody else.
//!
//! Between the choice of a port and the worker's `bind` anybody may take it, another tenant's worker included, and again
//! when the worker closes its listener. So what answers there is not taken for the worker until its listening socket is
//! found among the worker's descriptors. From then on that socket is known: as long as no other listens, one question to
//! the kernel tells so.

use std::{
    collections::{HashSet, VecDeque},
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Read as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{sync::Semaphore, task::spawn_blocking};

use crate::{process::Pids, sock_diag};

/// The state of a listening socket in /proc/net/tcp.
const LISTEN: &str = "0A";

/// How often a process tree is walked before its listener counts as foreign: a process whose parent ends during the
/// walk can escape it once.
const WALKS: usize = 3;

/// How much of a worker one check looks at, in all of its walks. A worker decides itself how many processes and
/// descriptors it has, and must not decide how long the daemon is busy with them. With so many a check takes less than
/// half a second.
const BUDGET: Budget = Budget { processes: 4_096, entries: 65_536 };

/// The longest list of a thread's children that is read, in bytes: more would exceed the budget of processes anyway.
const MAX_CHILDREN: u64 = 64 * 1024;

/// Who listens on a port.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Holder {
    Nobody,
    /// A process of the worker.
    Worker,
    Somebody,
}

/// The inodes of sockets.
type Sockets = HashSet<u64>;

/// The port of one worker that binds it itself.
#[derive(Debug)]
pub(crate) struct OwnPort {
    number: u16,
    pids: Pids,
    /// The sockets that were found among the worker's descriptors. The kernel gives a socket's number to another one
    /// only after four thousand million others.
    trusted: Mutex<Arc<Sockets>>,
    /// Lets one check at a time walk the worker's processes.
    walks: Arc<Semaphore>,
}

impl OwnPort {
    pub(crate) fn new(number: u16, pids: Pids) -> Self {
        Self { number, pids, trusted: Mutex::default(), walks: Arc::new(Semaphore::new(1)) }
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.number).into()
    }

    /// The sockets that count as the worker's: the same allocation as before unless others were found since.
    pub(crate) fn trusted(&self) -> Arc<Sockets> {
        Arc::clone(&self.trusted.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Tells who listens on the port. Only when that is not the sockets that did before, the worker's processes are
    /// looked through, on a thread that may block.
    ///
    /// Cancel safe; a walk that has begun goes on to its end, and no other begins until then.
    ///
    /// # Errors
    /// It cannot be told: `/proc` cannot be read, or the worker has too many processes, descriptors or listeners. A
    /// process whose descriptors may not be looked at counts as one that does not listen.
    pub(crate) async fn holder(self: &Arc<Self>) -> io::Result<Holder> {
        if let Some(holder) = self.glance()? {
            return Ok(holder);
        }
        let Ok(permit) = Arc::clone(&self.walks).acquire_owned().await else { unreachable!("it is never closed") };
        // The one before may have found what this one would look for.
        if let Some(holder) = self.glance()? {
            return Ok(holder);
        }
        let port = Arc::clone(self);
        let walk = spawn_blocking(move || {
            let _permit = permit;
            port.search(BUDGET)
        });
        walk.await.map_err(io::Error::other)?
    }

    /// Tells who listens if no walk is needed for that.
    fn glance(&self) -> io::Result<Option<Holder>> {
        let sockets = listeners(self.number)?;
        Ok(if sockets.is_empty() {
            Some(Holder::Nobody)
        } else {
            (sockets == *self.trusted()).then_some(Holder::Worker)
        })
    }

    /// Looks for the listening sockets among the worker's descriptors, and trusts them if they are there.
    fn search(&self, mut budget: Budget) -> io::Result<Holder> {
        for _ in 0..WALKS {
            let sockets = listeners(self.number)?;
            if sockets.is_empty() {
                return Ok(Holder::Nobody);
            }
            // Several sockets can share a port (SO_REUSEPORT); the kernel picks one for each connection, so all of them
            // must be the worker's.
            let mut missing = sockets.clone();
            remove_sockets_of_tree(&mut missing, &[self.pids.init, self.pids.main], &mut budget)?;
            if missing.is_empty() {
                *self.trusted.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(sockets);
                return Ok(Holder::Worker);
            }
        }
        Ok(Holder::Somebody)
    }
}

/// Whether anybody listens on a loopback port.
///
/// # Errors
/// It cannot be told.
pub(crate) fn is_listened_on(port: u16) -> io::Result<bool> {
    Ok(!listeners(port)?.is_empty())
}

/// What a check may still look at.
#[derive(Clone, Copy, Debug)]
struct Budget {
    processes: usize,
    /// Descriptors and threads.
    entries: usize,
}

impl Budget {
    fn spend_process(&mut self) -> io::Result<()> {
        self.processes = self.processes.checked_sub(1).ok_or_else(|| too_many("processes", BUDGET.processes))?;
        Ok(())
    }

    fn spend_entry(&mut self) -> io::Result<()> {
        let left = self.entries.checked_sub(1).ok_or_else(|| too_many("descriptors and threads", BUDGET.entries))?;
        self.entries = left;
        Ok(())
    }
}

fn too_many(what: &str, looked_at: usize) -> io::Error {
    io::Error::other(format!("the worker has too many {what}; at most {looked_at} are looked at"))
}

/// The inodes of the sockets that would get a connection to 127.0.0.1 on this port.
fn listeners(port: u16) -> io::Result<Sockets> {
    let Ok(listening) = sock_diag::listening(port) else { return listeners_in_proc(port) };
    if listening.len() > sock_diag::MAX_LISTENING {
        return Err(io::Error::other(format!("more than {} sockets listen there", sock_diag::MAX_LISTENING)));
    }
    Ok(listening.iter().filter(|socket| takes_loopback(socket.address)).map(|socket| socket.inode).collect())
}

/// Whether a socket bound to this address gets connections to 127.0.0.1.
fn takes_loopback(address: IpAddr) -> bool {
    match address {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => true,
        address => matches!(address.to_canonical(), IpAddr::V4(Ipv4Addr::LOCALHOST | Ipv4Addr::UNSPECIFIED)),
    }
}

/// The same as [`listeners`] where the kernel has no sock_diag, and slower.
fn listeners_in_proc(port: u16) -> io::Result<Sockets> {
    let mut inodes = HashSet::new();
    for table in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        let table = match File::open(table) {
            Ok(table) => table,
            // Without IPv6 there is no such table.
            Err(error) if error.kind() == io::ErrorKind::NotFound && table.ends_with('6') => continue,
            Err(error) => return Err(error),
        };
        for line in BufReader::new(table).lines().skip(1) {
            let line = line?;
            let Some(entry) = Entry::parse(&line) else { continue };
            // All listening sockets come first (the kernel's proc_net_tcp document): what follows may be many
            // thousands of connections.
            if !entry.listens {
                break;
            }
            if entry.port == port && takes_loopback(entry.address) {
                inodes.insert(entry.inode);
            }
        }
    }
    Ok(inodes)
}

#[derive(Debug, Eq, PartialEq)]
struct Entry {
    port: u16,
    address: IpAddr,
    listens: bool,
    inode: u64,
}

impl Entry {
    /// Reads a line such as `0: 0100007F:4E21 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 12345 1 …`.
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace();
        let (bound, port) = fields.nth(1)?.split_once(':')?;
        let state = fields.nth(1)?;
        let inode = fields.nth(5)?.parse().ok()?;
        Some(Self {
            port: u16::from_str_radix(port, 16).ok()?,
            address: address(bound)?,
            listens: state == LISTEN,
            inode,
        })
    }
}

/// Reads an address that is written as 32-bit words, each in the machine's order.
fn address(text: &str) -> Option<IpAddr> {
    let words = text.as_bytes().chunks(8).map(|word| u32::from_str_radix(str::from_utf8(word).ok()?, 16).ok());
    let bytes: Vec<u8> = words.map(|word| word.map(u32::to_ne_bytes)).collect::<Option<Vec<_>>>()?.concat();
    match (<[u8; 4]>::try_from(&*bytes), <[u8; 16]>::try_from(&*bytes)) {
        (Ok(v4), _) => Some(Ipv4Addr::from(v4).into()),
        (_, Ok(v6)) => Some(Ipv6Addr::from(v6).into()),
        _ => None,
    }
}

/// Takes out of `sockets` those that a process of the tree has open.
///
/// # Errors
/// The budget is spent and not all of them are found.
fn remove_sockets_of_tree(sockets: &mut Sockets, roots: &[u32], budget: &mut Budget) -> io::Result<()> {
    let mut waiting: VecDeque<u32> = roots.iter().copied().collect();
    let mut seen: HashSet<u32> = roots.iter().copied().collect();
    while let Some(pid) = waiting.pop_front() {
        budget.spend_process()?;
        remove_open_sockets(sockets, pid, budget)?;
        if sockets.is_empty() {
            break;
        }
        waiting.extend(children(pid, budget)?.into_iter().filter(|child| seen.insert(*child)));
    }
    Ok(())
}

/// Takes out of `sockets` those that a process has open; none if it is gone or may not be looked at.
fn remove_open_sockets(sockets: &mut Sockets, pid: u32, budget: &mut Budget) -> io::Result<()> {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Ok(()) };
    for descriptor in descriptors.map_while(Result::ok) {
        budget.spend_entry()?;
        if let Some(inode) = socket(descriptor.path()) {
            sockets.remove(&inode);
            if sockets.is_empty() {
                break;
            }
        }
    }
    Ok(())
}

/// The inode of the socket that a descriptor is, if it is one and still open.
fn socket(descriptor: PathBuf) -> Option<u64> {
    fs::read_link(descriptor).ok()?.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// The children of all threads of a process; none if it is gone.
fn children(pid: u32, budget: &mut Budget) -> io::Result<Vec<u32>> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Ok(Vec::new()) };
    let mut children = Vec::new();
    for thread in threads.map_while(Result::ok) {
        budget.spend_entry()?;
        let mut list = String::new();
        let Ok(file) = File::open(thread.path().join("children")) else { continue };
        // A thread that ends meanwhile has no children.
        let Ok(length) = file.take(MAX_CHILDREN).read_to_string(&mut list) else { continue };
        children.extend(list.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        if length as u64 == MAX_CHILDREN || children.len() > budget.processes {
            return Err(too_many("processes", BUDGET.processes));
        }
    }
    Ok(children)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use tokio::runtime::Builder;

    use super::*;

    fn own_port(listener: &TcpListener) -> u16 {
        listener.local_addr().expect("a bound socket has an address").port()
    }

    /// The port of a worker whose processes are this one or, without it, none.
    fn own(listener: &TcpListener, pid: Option<u32>) -> Arc<OwnPort> {
        // No process has the ID 0.
        let pid = pid.unwrap_or(0);
        Arc::new(OwnPort::new(own_port(listener), Pids { init: pid, main: pid }))
    }

    fn me() -> Option<u32> {
        Some(std::process::id())
    }

    #[tokio::test]
    async fn a_listener_is_found_in_the_process_that_holds_it_and_nowhere_else() {
        for address in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"] {
            let listener = TcpListener::bind(address).expect("a port");
            let (mine, foreign) = (own(&listener, me()), own(&listener, None));
            assert_eq!(mine.holder().await.expect("/proc is there"), Holder::Worker);
            assert_eq!(foreign.holder().await.expect("/proc is there"), Holder::Somebody);
            drop(listener);
            assert_eq!(mine.holder().await.expect("/proc is there"), Holder::Nobody);
        }
    }

    #[test]
    fn only_a_listener_that_is_new_takes_a_walk_and_that_is_not_on_the_runtime() {
        let runtime = Builder::new_current_thread().max_blocking_threads(1).build().expect("a runtime");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = own(&listener, me());
        runtime.block_on(async {
            assert!(port.needs_blocking_thread().await);
            assert_eq!(port.holder().await.expect("/proc is there"), Holder::Worker);
            assert!(!port.needs_blocking_thread().await);
            let bound = listener.local_addr().expect("a bound socket has an address");
            drop(listener);
            let _other = TcpListener::bind(bound).expect("the port is free");
            assert!(port.needs_blocking_thread().await);
        });
    }

    impl OwnPort {
        /// Whether a check gets nowhere while the only thread that may block is busy.
        async fn needs_blocking_thread(self: &Arc<Self>) -> bool {
            let (free, busy) = std::sync::mpsc::channel::<()>();
            let blocked = spawn_blocking(move || busy.recv());
            let check = tokio::spawn({
                let port = Arc::clone(self);
                async move { port.holder().await }
            });
            tokio::task::yield_now().await;
            let pending = !check.is_finished();
            drop(free);
            blocked.await.expect("no panic").expect_err("nothing was sent");
            check.await.expect("no panic").expect("/proc is there");
            pending
        }
    }

    #[tokio::test]
    async fn one_check_at_a_time_walks() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = own(&listener, me());
        let walking = Arc::clone(&port.walks).try_acquire_owned().expect("nobody walks");
        let second = tokio::spawn({
            let port = Arc::clone(&port);
            async move { port.holder().await }
        });
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        assert!(port.trusted().is_empty(), "it has not looked");
        drop(walking);
        assert_eq!(second.await.expect("no panic").expect("/proc is there"), Holder::Worker);
    }

    #[test]
    fn a_worker_with_too_much_to_look_at_is_not_trusted() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        // Ten descriptors come before the listener's own.
        let mine = own(&listener, me());
        let _kept: Vec<_> = (0..10).map(|_| File::open("/dev/null").expect("a descriptor")).collect();
        let last = listener.try_clone().expect("a descriptor");
        drop(listener);
        for budget in [Budget { processes: 4, entries: 3 }, Budget { processes: 0, entries: 4_096 }] {
            let error = mine.search(budget).expect_err("that is not enough").to_string();
            assert!(error.contains("too many"), "{error}");
            assert!(mine.trusted().is_empty());
        }
        assert_eq!(mine.search(BUDGET).expect("/proc is there"), Holder::Worker);
        drop(last);
    }

    #[test]
    fn a_search_in_vain_spends_one_budget_and_not_one_for_each_walk() {
        let mut budget = Budget { processes: 4, entries: 4_096 };
        let mut nowhere = HashSet::from([u64::MAX]);
        remove_sockets_of_tree(&mut nowhere, &[std::process::id()], &mut budget).expect("that is enough");
        assert!(budget.processes < 4 && budget.entries < 4_096, "{budget:?}");
    }

    #[test]
    fn the_kernels_two_answers_agree() {
        for bound in ["127.0.0.1:0", "127.0.0.2:0", "0.0.0.0:0", "[::1]:0", "[::]:0", "[::ffff:127.0.0.1]:0"] {
            let listener = TcpListener::bind(bound).expect("a port");
            let port = own_port(&listener);
            let expected = !matches!(bound, "127.0.0.2:0" | "[::1]:0");
            assert_eq!(!listeners(port).expect("sock_diag is there").is_empty(), expected, "{bound}");
            assert_eq!(listeners(port).expect("sock_diag is there"), listeners_in_proc(port).expect("/proc is there"));
        }
    }

    #[test]
    fn a_line_that_is_no_entry_is_passed_over() {
        let line = "   0: 0100007F:4E21 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1";
        let entry = Entry {
            port: 20_001,
            address: Ipv4Addr::from(0x0100_007f_u32.to_ne_bytes()).into(),
            listens: true,
            inode: 12_345,
        };
        assert_eq!(Entry::parse(line), Some(entry));
        assert_eq!(Entry::parse("nonsense"), None);
        assert_eq!(Entry::parse(""), None);
    }
}
