use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::table::Table;

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Few different hashes, so that there are collisions, long runs, and runs around the end of the table.
    #[test]
    fn a_table_holds_what_a_map_would(steps in prop::collection::vec((any::<bool>(), 0..40_u64), 0..300)) {
        let hash = |key: u64| key.wrapping_mul(0x9e37_79b9) & 0b1001_1101;
        let mut table = Table::new();
        let mut map = BTreeMap::new();
        for (number, (insert, key)) in steps.into_iter().enumerate() {
            let is_it = |value: &(u64, usize)| value.0 == key;
            if insert && !map.contains_key(&key) {
                table.insert(hash(key), (key, number));
                map.insert(key, number);
            } else {
                prop_assert_eq!(table.remove(hash(key), is_it), map.remove(&key).map(|number| (key, number)));
            }
            for key in 0..40 {
                let found = table.find(hash(key), |value| value.0 == key).map(|value| value.1);
                prop_assert_eq!(found, map.get(&key).copied());
            }
            let mut all: Vec<_> = table.iter().copied().collect();
            all.sort();
            prop_assert_eq!(all, map.clone().into_iter().collect::<Vec<_>>());
        }
    }
}
