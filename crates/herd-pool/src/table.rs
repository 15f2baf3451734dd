//! A hash table whose look-ups touch as little memory as can be.

/// A table from hashes to values.
///
/// With a million sessions nothing of a look-up is in the processor's caches, and what it costs is the number of places
/// in memory that it visits one after the other. Here that is two: the bucket, which has the whole hash beside the
/// value's pointer, and the value. The standard table would visit three (control bytes, bucket, value), and would visit
/// every value when it grows. Buckets lie open, are probed one by one, and at most half of them are taken.
///
/// The hashes must be keyed, so that nobody can choose them to collide.
pub(crate) struct Table<T> {
    buckets: Vec<Option<Bucket<T>>>,
    len: usize,
}

struct Bucket<T> {
    hash: u64,
    value: T,
}

/// The fewest buckets; a power of two, as all sizes are.
const SMALLEST: usize = 4;

impl<T> Table<T> {
    pub(crate) fn new() -> Self {
        Self { buckets: Vec::new(), len: 0 }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.buckets.iter().flatten().map(|bucket| &bucket.value)
    }

    /// The value with this hash of which `is_it` holds.
    pub(crate) fn find(&self, hash: u64, is_it: impl Fn(&T) -> bool) -> Option<&T> {
        let place = self.place(hash, is_it)?;
        self.buckets[place].as_ref().map(|bucket| &bucket.value)
    }

    /// Adds a value that is not in the table.
    pub(crate) fn insert(&mut self, hash: u64, value: T) {
        if (self.len + 1) * 2 > self.buckets.len() {
            self.resize((self.buckets.len() * 2).max(SMALLEST));
        }
        self.put(Bucket { hash, value });
        self.len += 1;
    }

    /// Removes and returns the value with this hash of which `is_it` holds.
    pub(crate) fn remove(&mut self, hash: u64, is_it: impl Fn(&T) -> bool) -> Option<T> {
        let place = self.place(hash, is_it)?;
        let removed = self.buckets[place].take()?;
        self.len -= 1;
        self.close_gap(place);
        // Far below the size at which the table grows, so that it does not go back and forth.
        if self.buckets.len() > SMALLEST && self.len * 8 <= self.buckets.len() {
            self.resize(self.buckets.len() / 2);
        }
        Some(removed.value)
    }

    fn place(&self, hash: u64, is_it: impl Fn(&T) -> bool) -> Option<usize> {
        if self.buckets.is_empty() {
            return None;
        }
        let mut place = self.home(hash);
        // It ends: at least half of the buckets are free.
        while let Some(bucket) = &self.buckets[place] {
            if bucket.hash == hash && is_it(&bucket.value) {
                return Some(place);
            }
            place = self.after(place);
        }
        None
    }

    fn put(&mut self, bucket: Bucket<T>) {
        let mut place = self.home(bucket.hash);
        while self.buckets[place].is_some() {
            place = self.after(place);
        }
        self.buckets[place] = Some(bucket);
    }

    /// Moves those who would not be found any more behind the gap into it.
    fn close_gap(&mut self, mut gap: usize) {
        let mask = self.buckets.len() - 1;
        let mut place = self.after(gap);
        while let Some(bucket) = &self.buckets[place] {
            // How far the bucket is from where its search begins, and how far from there the gap is.
            let home = self.home(bucket.hash);
            if place.wrapping_sub(home) & mask >= place.wrapping_sub(gap) & mask {
                self.buckets.swap(gap, place);
                gap = place;
            }
            place = self.after(place);
        }
    }

    fn resize(&mut self, size: usize) {
        let empty = std::iter::repeat_with(|| None).take(size).collect();
        let old = std::mem::replace(&mut self.buckets, empty);
        for bucket in old.into_iter().flatten() {
            self.put(bucket);
        }
    }

    fn home(&self, hash: u64) -> usize {
        // Sizes are powers of two and far below 2^32; what is cut off is not needed.
        hash as u32 as usize & (self.buckets.len() - 1)
    }

    fn after(&self, place: usize) -> usize {
        (place + 1) & (self.buckets.len() - 1)
    }
}
