//! Sockets of a worker's own network, made there by its init and connected from here.
//!
//! A socket stays in the network namespace in which it was made (network_namespaces(7)), whoever has it. So whoever wants
//! to reach a worker's private loopback needs nothing but a socket from there, and that costs init one system call.

use std::{
    collections::VecDeque,
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, mpsc};

/// How many sockets lie ready while nobody connects: a connection costs no question to init then. Each is a descriptor.
const READY: usize = 2;

/// The most that are asked for at once.
const AT_ONCE: usize = 64;

/// The sockets of one worker. Shared by its connectors, which take, and its supervisor, which asks init for more.
#[derive(Debug, Default)]
pub(crate) struct Stock {
    shelf: Mutex<Shelf>,
    /// Wakes who waits for a socket.
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Shelf {
    sockets: VecDeque<OwnedFd>,
    /// How many wait for a socket.
    waiting: usize,
    /// How many init was asked for and has not sent yet.
    ordered: usize,
    /// Why the last ones did not come.
    failure: Option<i32>,
    /// How many who wait have to be told of that.
    to_tell: usize,
    /// Tells the supervisor that there is less than there should be; `None` before the start and after the end.
    orders: Option<mpsc::UnboundedSender<()>>,
    ended: bool,
}

impl Stock {
    /// Opens the stock: from here on `orders` says that something is to be ordered.
    pub(crate) fn open(&self) -> mpsc::UnboundedReceiver<()> {
        let (orders, receiver) = mpsc::unbounded_channel();
        let mut shelf = self.shelf();
        // The first order is due at once.
        let _ = orders.send(());
        shelf.orders = Some(orders);
        receiver
    }

    /// How many sockets to ask init for now, at most [`AT_ONCE`]. They count as ordered.
    pub(crate) fn order(&self) -> u8 {
        let mut shelf = self.shelf();
        let wanted = (READY + shelf.waiting).saturating_sub(shelf.sockets.len() + shelf.ordered).min(AT_ONCE);
        shelf.ordered += wanted;
        u8::try_from(wanted).unwrap_or(u8::MAX)
    }

    /// Takes in what init sent for an order of this many.
    pub(crate) fn deliver(&self, ordered: u8, sockets: Vec<OwnedFd>, errno: Option<i32>) {
        let mut shelf = self.shelf();
        shelf.ordered = shelf.ordered.saturating_sub(usize::from(ordered));
        shelf.sockets.extend(sockets);
        if errno.is_some() {
            shelf.failure = errno;
            shelf.to_tell = shelf.waiting.saturating_sub(shelf.sockets.len());
        }
        drop(shelf);
        self.arrived.notify_waiters();
    }

    /// An order could not be sent: whoever waits is told so.
    pub(crate) fn fail(&self, ordered: u8, error: &io::Error) {
        self.deliver(ordered, Vec::new(), error.raw_os_error().or(Some(rustix::io::Errno::PIPE.raw_os_error())));
    }

    /// The worker is gone, and nobody gets a socket any more.
    pub(crate) fn close(&self) {
        let mut shelf = self.shelf();
        shelf.ended = true;
        shelf.orders = None;
        shelf.sockets.clear();
        drop(shelf);
        self.arrived.notify_waiters();
    }

    /// Takes a socket, and waits for one if none lies ready.
    ///
    /// Cancel safe.
    pub(crate) async fn take(self: &Arc<Self>) -> io::Result<OwnedFd> {
        if let Some(socket) = self.try_take()? {
            return Ok(socket);
        }
        let _waiting = Waiting::new(self);
        loop {
            let arrived = self.arrived.notified();
            tokio::pin!(arrived);
            // Registered before the look, so that nothing that arrives after it is missed.
            arrived.as_mut().enable();
            if let Some(socket) = self.try_take()? {
                return Ok(socket);
            }
            if let Some(errno) = self.told() {
                return Err(io::Error::from_raw_os_error(errno));
            }
            arrived.await;
        }
    }

    fn try_take(&self) -> io::Result<Option<OwnedFd>> {
        let mut shelf = self.shelf();
        if shelf.ended {
            return Err(io::Error::new(io::ErrorKind::ConnectionRefused, "the worker has ended"));
        }
        let socket = shelf.sockets.pop_front();
        if socket.is_some() {
            shelf.reorder();
        }
        Ok(socket)
    }

    /// Why no socket came, for one of those who wait.
    fn told(&self) -> Option<i32> {
        let mut shelf = self.shelf();
        shelf.to_tell = shelf.to_tell.checked_sub(1)?;
        shelf.failure
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    fn reorder(&self) {
        if let Some(orders) = &self.orders {
            // It fails only if the supervisor is gone, and then the stock is about to be closed.
            let _ = orders.send(());
        }
    }
}

/// Counts one who waits.
struct Waiting<'a>(&'a Stock);

impl<'a> Waiting<'a> {
    fn new(stock: &'a Stock) -> Self {
        let mut shelf = stock.shelf();
        shelf.waiting += 1;
        shelf.reorder();
        drop(shelf);
        Self(stock)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut shelf = self.0.shelf();
        shelf.waiting -= 1;
        shelf.to_tell = shelf.to_tell.min(shelf.waiting);
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, time::Duration};

    use tokio::time::timeout;

    use super::*;

    fn sockets(count: u8) -> Vec<OwnedFd> {
        // What they are does not matter here.
        (0..count).map(|_| File::open("/dev/null").expect("it is there").into()).collect()
    }

    /// An init that answers every order.
    async fn serve(stock: Arc<Stock>) {
        let mut orders = stock.open();
        while orders.recv().await.is_some() {
            let count = stock.order();
            if count > 0 {
                stock.deliver(count, sockets(count), None);
            }
        }
    }

    #[tokio::test]
    async fn some_lie_ready_and_each_that_is_taken_is_replaced() {
        let stock = Arc::new(Stock::default());
        let mut orders = stock.open();
        orders.recv().await.expect("the first order");
        assert_eq!(usize::from(stock.order()), READY);
        assert_eq!(stock.order(), 0, "they are on their way");
        stock.deliver(2, sockets(2), None);
        stock.take().await.expect("one lies ready");
        orders.recv().await.expect("an order for its successor");
        assert_eq!(stock.order(), 1);
    }

    #[tokio::test]
    async fn a_thousand_who_come_at_once_all_get_one() {
        let stock = Arc::new(Stock::default());
        let init = tokio::spawn(serve(Arc::clone(&stock)));
        let takers: Vec<_> = (0..1000)
            .map(|_| {
                let stock = Arc::clone(&stock);
                tokio::spawn(async move { stock.take().await })
            })
            .collect();
        for taker in takers {
            taker.await.expect("no panic").expect("it gets one");
        }
        stock.close();
        init.await.expect("it ends with the stock");
    }

    #[tokio::test]
    async fn who_waits_is_told_why_no_socket_comes_and_the_next_one_tries_anew() {
        let stock = Arc::new(Stock::default());
        let mut orders = stock.open();
        let taker = tokio::spawn({
            let stock = Arc::clone(&stock);
            async move { stock.take().await }
        });
        while stock.shelf().waiting == 0 {
            tokio::task::yield_now().await;
        }
        orders.recv().await.expect("an order");
        let count = stock.order();
        stock.deliver(count, Vec::new(), Some(24));
        let error = taker.await.expect("no panic").expect_err("there is none");
        assert_eq!(error.raw_os_error(), Some(24));
        let next = stock.take();
        tokio::pin!(next);
        assert!(timeout(Duration::ZERO, &mut next).await.is_err());
        stock.deliver(0, sockets(1), None);
        next.await.expect("there is one");
    }

    #[tokio::test]
    async fn the_end_of_the_worker_is_told_to_those_who_wait_and_to_those_who_come() {
        let stock = Arc::new(Stock::default());
        let _orders = stock.open();
        let next = stock.take();
        tokio::pin!(next);
        assert!(timeout(Duration::ZERO, &mut next).await.is_err());
        stock.close();
        assert_eq!(next.await.expect_err("it has ended").kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(stock.take().await.expect_err("it has ended").kind(), io::ErrorKind::ConnectionRefused);
    }
}
