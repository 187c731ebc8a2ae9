"""Reading a search page by page."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta

import pytest

from airflow_insightly_hooks.core.detection.scan import PageRequest, Scan
from airflow_insightly_hooks.core.errors import IncompleteScan
from tests.core.detection.crm import CONTACTS, EPOCH, ORDERS, TIES_SHUFFLED, Crm, read

STABLE = [order for order in ORDERS if order != "none"]


def crm_of(records: int, **how) -> Crm:
    """Return a CRM with so many records, created some time ago."""
    crm = Crm(**how)
    crm.create_many(records)
    crm.now = 100
    return crm


def ids(records: list[dict]) -> list[int]:
    return [record["CONTACT_ID"] for record in records]


def missed(crm: Crm, records: list[dict]) -> int:
    """Return how many of the records that still exist were passed over. No record may come twice."""
    found = ids(records)
    assert len(found) == len(set(found))
    return len(set(crm.records) - set(found))


def deleting(number: int, *, pages: int = 10**6, seed: int = 0):
    """Return an action that deletes so many records, anywhere, between any two of the first pages."""
    chance = random.Random(seed)

    def between(crm: Crm, page: int) -> None:
        crm.now += 0.1
        for record_id in chance.sample(sorted(crm.records), number) if page <= pages else ():
            crm.delete(record_id)

    return between


def after_the_first_page(act: Callable[[Crm], None]):
    """Return an action that runs between the first two pages, ten seconds later."""

    def between(crm: Crm, page: int) -> None:
        if page == 1:
            crm.now += 10
            act(crm)

    return between


# --- nothing moves ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "records"),
    [("id", n) for n in (0, 1, 499, 500, 501, 995, 1000, 24_999)]
    + [(order, n) for order in STABLE for n in (501, 2600)],
)
def test_it_costs_at_most_a_request_more_than_a_plain_loop_in_a_short_scan(order, records):
    """Each record comes once. The plain loop stops at the first page that is shorter than asked for."""
    crm = crm_of(records, order=order)
    assert sorted(ids(read(crm))) == sorted(crm.records)
    assert len(crm.requests) <= records // 500 + 2


@pytest.mark.slow
def test_it_costs_at_most_two_per_cent_more_in_a_long_scan():
    """Pages share five of five hundred records, and the count says which page is the last."""
    crm = crm_of(100_000)
    assert missed(crm, read(crm)) == 0
    assert len(crm.requests) <= 1.02 * (100_000 // 500 + 1)


@pytest.mark.slow
@pytest.mark.parametrize("page_size", range(2, 10))
def test_no_order_at_all_is_counted_out_whatever_it_looks_like(page_size):
    """If nothing moves, all records are read, even if small pages are in order by chance."""
    for seed in range(150):
        crm = crm_of(1 + seed % 40, order="none", seed=seed)
        assert missed(crm, read(crm, page_size=page_size)) == 0


def test_what_fits_on_a_page_is_one_request():
    """A short page is the last one if the count agrees."""
    crm = crm_of(499)
    read(crm)
    (request,) = crm.requests
    assert (request.skip, request.top, request.count_total) == (0, 500, True)


def test_the_count_is_asked_of_the_first_and_the_last_page_only():
    """Counting costs the server time."""
    crm = crm_of(2600)
    read(crm)
    assert [request.count_total for request in crm.requests] == [True, False, False, False, False, True]


@pytest.mark.parametrize("totals", [False, "wrong"])
@pytest.mark.parametrize("records", [0, 1, 3, 499, 500, 1200])
def test_without_a_count_the_last_page_is_confirmed(totals, records):
    """Without a count, or with one that ignores the bound, a request or two more are made."""
    crm = crm_of(records, totals=totals)
    assert missed(crm, read(crm)) == 0
    assert len(crm.requests) <= records // 500 + 3


@pytest.mark.parametrize("most", [2, 3, 100, 499])
def test_answers_cut_short_are_gone_on_from(most):
    """If a server always answers fewer records than asked for, all records come, with or without a count."""
    for totals in (True, False, "wrong"):
        crm = crm_of(150, most=most, totals=totals)
        assert missed(crm, read(crm)) == 0


def test_a_server_that_answers_one_record_at_a_time_isnt_taken_for_the_end():
    """Pages of one record can't overlap, so the scan reports that it is incomplete."""
    with pytest.raises(IncompleteScan):
        read(crm_of(5, most=1))


# --- records move ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
def test_records_deleted_between_pages_hide_no_others(order):
    """Three of 2,600 are deleted between any two pages.

    A plain loop misses some records, the scan misses none.
    """
    pages = 10**6 if order in STABLE else 5  # shuffled, a scan ends only when it is calm
    crm = crm_of(2600, order=order)
    crm.between = deleting(3, pages=pages)
    assert missed(crm, read(crm)) == 0
    assert order not in STABLE or len(crm.requests) <= 7

    plain = crm_of(2600, order=order)
    plain.between = deleting(3, pages=pages)
    found: list[dict] = []
    while page := plain.answer(PageRequest(len(found), 500, False), None)[0]:
        found += page
    assert set(plain.records) - set(ids(found))


@pytest.mark.slow
@pytest.mark.parametrize("number", [4, 5, 60, 400, 600])
@pytest.mark.parametrize("order", STABLE)
def test_a_page_that_joins_nothing_is_asked_for_from_further_back(order, number):
    """This holds however many records are deleted at once."""
    crm = crm_of(2600, order=order)
    crm.between = deleting(number, pages=2)
    assert missed(crm, read(crm)) == 0


@pytest.mark.parametrize("order", STABLE)
def test_a_record_that_moves_to_where_it_was_read_already_is_found(order):
    """It is created in time, not read yet, and updated during the scan.

    So records that changed are read again.
    """
    crm = crm_of(1300, order=order)
    unread = crm.found(None)[-1].record_id
    crm.between = lambda crm, page: crm.update(unread) if page == 1 else None
    assert missed(crm, read(crm)) == 0


@pytest.mark.slow
def test_a_record_that_moves_while_another_goes_the_other_way_is_found():
    """Two updates cancel each other's shift. The time of the second one reveals it."""
    for seed in range(25):
        crm = crm_of(1300, order="stable", seed=seed)
        order = [record.record_id for record in crm.found(None)]
        crm.between = after_the_first_page(lambda c, o=order: (c.update(o[-1]), c.update(o[0])))
        assert missed(crm, read(crm)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("totals", [True, False, "wrong"])
@pytest.mark.parametrize("order", ["updated, latest first", "stable"])
def test_a_record_that_moves_while_another_is_deleted_is_found(order, totals):
    """The deletion cancels the shift.

    Without a count that reveals it, the scan looks for changed records, too.
    """
    for seed in range(10):
        crm = crm_of(1300, order=order, totals=totals, seed=seed)
        stood = [record.record_id for record in crm.found(None)]
        crm.between = after_the_first_page(lambda c, o=stood: (c.update(o[-1]), c.delete(o[0])))
        assert missed(crm, read(crm)) == 0
        assert len(crm.requests) <= 7


@pytest.mark.parametrize("totals", [True, "wrong"])
def test_a_record_that_moves_before_the_only_page_of_a_cut_answer_is_found(totals):
    """Of three records, the server answers two. The third moves to the front, and the first is deleted.

    So nothing follows the second one, as if these two had been all.
    """
    crm = crm_of(3, order="updated, latest first", most=2, totals=totals)
    crm.between = after_the_first_page(lambda c: (c.update(1), c.delete(3)))
    assert missed(crm, read(crm)) == 0
    assert len(crm.requests) <= (3 if totals is True else 5)


@pytest.mark.parametrize("totals", [True, "wrong"])
def test_a_record_that_moves_behind_others_doesnt_confirm_the_end(totals):
    """Of three records, the server answers two. The second moves to the end, and the first is deleted.

    So the second stands in its old place again, but the third stands before it.
    """
    crm = crm_of(3, order="updated", most=2, totals=totals)
    crm.between = after_the_first_page(lambda c: (c.update(2), c.delete(1)))
    assert missed(crm, read(crm)) == 0
    assert len(crm.requests) <= 5


@pytest.mark.parametrize("behind", [0, 1, 2])
def test_a_record_that_moves_is_found_where_its_time_is_behind_the_servers_clock(behind):
    """It is behind by at most two seconds, and the bound may be exclusive."""
    crm = crm_of(1300, order="updated, latest first")
    unread = crm.found(None)[-1].record_id
    crm.between = lambda crm, page: crm.update(unread) if page == 1 else None
    scan = Scan(CONTACTS)
    records = []
    while scan.request is not None:
        page, total, date = crm.answer(scan.request, None)
        records += scan.feed(page, total, date + timedelta(seconds=behind))
    assert missed(crm, records) == 0


@pytest.mark.slow
@pytest.mark.parametrize("order", ["id", "updated"])
def test_a_busy_crm_is_read_to_its_end(order):
    """More records than a page holds change during a scan and move to its end.

    The pages there still overlap.
    """
    crm = crm_of(15_000, order=order)
    read_before = set(crm.records)

    def between(crm, page):
        crm.now += 0.25
        for number in range(25):
            crm.create() if order == "id" else crm.update(page * 25 + number)

    crm.between = between
    assert read_before <= set(ids(read(crm)))
    assert len(crm.requests) <= 80


def test_a_count_of_all_records_doesnt_let_a_scan_go_on_for_long():
    """A scan's limit of requests depends on the records that it has read, not on the API's count."""
    crm = crm_of(1200, order="none", totals="wrong")
    answer = crm.answer

    def answer_with_a_million(*asked):
        page, _, date = answer(*asked)
        return page, 1_000_000, date

    crm.answer = answer_with_a_million
    with pytest.raises(IncompleteScan) as caught:
        read(crm)
    assert caught.value.requests < 100


def test_what_was_just_changed_is_no_anchor():
    """More records than a page holds change in the same second.

    The scan starts again once that second is over.
    """
    crm = crm_of(1300, order="updated, latest first")
    for record_id in range(1, 900):
        crm.update(record_id)

    def between(crm, _page):
        crm.now += 0.5

    crm.between = between
    assert missed(crm, read(crm)) == 0


# --- no order --------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("records", [502, 600, 1200, 3000])
@pytest.mark.parametrize("order", ["none", TIES_SHUFFLED])
def test_an_order_that_changes_from_page_to_page_is_counted_out(order, records):
    """This holds even if thousands of records have the same update time and come in any order."""
    for seed in range(2):
        crm = crm_of(records, order=order, seed=seed)
        assert missed(crm, read(crm)) == 0


@pytest.mark.slow
def test_an_order_that_changes_is_found_out_while_records_are_deleted_too():
    """One record that is in two pages by chance does not make them overlap."""
    for seed in range(4):
        crm = crm_of(1200, order="none", seed=seed)
        crm.between = deleting(1, pages=3, seed=seed)
        assert missed(crm, read(crm)) == 0


@pytest.mark.slow
def test_a_scan_that_never_gets_calm_fails():
    """The order changes and records are deleted between any two pages.

    No answer could prove that none is missing.
    """
    crm = crm_of(2600, order="none")
    crm.between = deleting(1)
    with pytest.raises(IncompleteScan) as caught:
        read(crm)
    error = caught.value
    assert (error.record_type, error.requests) == ("Contacts", len(crm.requests))
    assert f"in {error.requests} requests" in str(error)
    assert len(crm.requests) < 250


def test_a_scan_that_fails_says_what_it_has_read():
    """The error says how many requests were made, how many records were found, and the last count."""
    crm = crm_of(6, order="none", seed=1)
    crm.between = lambda crm, _page: crm.update(1)
    with pytest.raises(IncompleteScan) as caught:
        read(crm, page_size=2)
    error = caught.value
    assert (error.requests, error.found, error.total) == (len(crm.requests), 6, 6)


def test_without_a_count_an_order_that_changes_fails():
    """Nothing else could show that all records were read."""
    with pytest.raises(IncompleteScan):
        read(crm_of(2600, order="none", totals=False))


def page_of(*record_ids: int, updated: str = "2026-03-29 00:00:00") -> list[dict]:
    return [{"CONTACT_ID": i, "DATE_CREATED_UTC": updated, "DATE_UPDATED_UTC": updated} for i in record_ids]


def test_a_few_records_in_both_pages_dont_make_them_join():
    """They are in order by chance, but hundreds of records that followed the first of them are missing."""
    scan = Scan(CONTACTS)
    scan.feed(page_of(*range(1, 501)), 600, EPOCH + timedelta(hours=1))
    assert scan.request.skip == 495
    scan.feed(page_of(10, 200, 490, *range(501, 590)), 599, EPOCH + timedelta(hours=1))
    assert (scan.request.skip, scan.request.count_total) == (0, True)


@pytest.mark.parametrize(("updated", "goes_on_at"), [("00:59:57", 990), ("00:59:58", 445)])
def test_a_record_that_has_just_changed_joins_nothing(updated, goes_on_at):
    """It may have moved there.

    A record has just changed if its time is less than two seconds before the scan.
    """
    last = page_of(500, updated=f"2026-03-29 {updated}")
    scan = Scan(CONTACTS)
    scan.feed(page_of(*range(1, 500)) + last, None, EPOCH + timedelta(hours=1))
    assert scan.request.skip == 495
    scan.feed(last + page_of(*range(601, 1100)), None, EPOCH + timedelta(hours=1))
    assert scan.request.skip == goes_on_at


HOUR = EPOCH + timedelta(hours=1)


@pytest.mark.parametrize(("deleted", "goes_on_at"), [(50, 940), (51, 0)])
def test_how_many_missing_records_can_have_been_deleted(deleted, goes_on_at):
    """If more are missing after the first known one, the order has changed, and a new pass begins."""
    scan = Scan(CONTACTS)
    scan.feed(page_of(*range(1, 501)), 2_000, HOUR)
    left = [*range(1, 501 - deleted), *range(501, 2_001)]
    for skip in (495, 445):
        assert scan.request.skip == skip
        scan.feed(page_of(*left[skip : skip + 500]), None, HOUR)
    assert scan.request.skip == goes_on_at


def test_how_far_a_scan_steps_back():
    """By 50 records, then by 500. Then a new pass begins, which proves that all was read."""
    scan = Scan(CONTACTS)
    for start in (1, 496, 991):
        scan.feed(page_of(*range(start, start + 500)), None, HOUR)
    skips = []
    for start in (5_000, 6_000, 7_000):
        skips.append(scan.request.skip)
        scan.feed(page_of(*range(start, start + 500)), None, HOUR)
    assert skips == [1_485, 1_435, 935]
    assert scan.request == PageRequest(0, 500, True)
    scan.feed(page_of(1, 2, 3), 3, HOUR)
    assert scan.request is None


def test_a_pass_that_stepped_back_is_followed_by_one_more():
    """Something has moved, so the count proves nothing. What changed since the beginning is read again."""
    scan = Scan(CONTACTS)
    scan.feed(page_of(*range(1, 501)), 700, HOUR)
    scan.feed(page_of(*range(600, 1_100)), None, HOUR)
    scan.feed(page_of(*range(446, 701)), 700, HOUR)
    assert scan.request == PageRequest(0, 500, True, HOUR - timedelta(seconds=3))


@pytest.mark.parametrize(("date", "bound"), [(HOUR, HOUR - timedelta(seconds=3)), (None, None)])
def test_two_pages_between_which_something_moved_are_not_enough(date, bound):
    """Without the server's clock, one more pass reads everything again."""
    scan = Scan(CONTACTS)
    scan.feed(page_of(*range(1, 501)), 600, date)
    scan.feed(page_of(*range(497, 602)), 600, date)
    assert scan.request == PageRequest(0, 500, True, bound)


def test_a_pass_over_recent_changes_keeps_its_bound():
    """Also if it begins again, because a page joined nothing."""
    scan = Scan(CONTACTS, 2)
    for records, total in (((1, 2), 3), ((2, 3), 4), ((3, 4), 4), ((4,), 4)):
        scan.feed(page_of(*records), total, HOUR)
    again = PageRequest(0, 2, True, HOUR - timedelta(seconds=3))
    assert scan.request == again
    scan.feed(page_of(1, 2), None, HOUR)
    scan.feed(page_of(8, 9), None, HOUR)
    assert scan.request == again


def test_pages_without_an_order_are_read_until_all_records_are_known():
    """It reads on behind a full page, and from the beginning after a short one. The count ends it."""
    scan = Scan(CONTACTS, 2)
    for records, total, following in (
        ((1, 2), 4, PageRequest(1, 2, False)),
        ((2, 1), None, PageRequest(3, 2, True)),  # in another order than before
        ((5,), 4, PageRequest(0, 2, True)),
        ((7, 1), 4, None),
    ):
        scan.feed(page_of(*records), total, HOUR)
        assert scan.request == following


def reading_recent_changes() -> tuple[Scan, PageRequest]:
    """Return a scan that has found a change of the count, and its request for what changed meanwhile."""
    scan = Scan(CONTACTS, 3)
    for records, total in (((1, 2, 3), 5), ((3, 4, 5), 6), ((5, 6), 6)):
        scan.feed(page_of(*records), total, HOUR)
    return scan, PageRequest(0, 3, True, HOUR - timedelta(seconds=3))


def test_a_pass_without_an_order_keeps_its_bound():
    """If something moves, it begins again, and stays without an order."""
    scan, again = reading_recent_changes()
    assert scan.request == again
    scan.feed(page_of(1, 2, 3), None, HOUR)
    scan.feed(page_of(9, 3), None, HOUR)
    assert scan.request == again
    scan.feed(page_of(1, 2, 3), None, HOUR)
    assert scan.request == PageRequest(3, 3, True, again.updated_after)


def test_a_pass_that_has_read_too_few_records_is_read_without_an_order():
    """Nothing has moved, but the count shows more records, so a page has shown one of them twice."""
    scan, again = reading_recent_changes()
    scan.feed(page_of(1, 2, 3), 4, HOUR)
    scan.feed(page_of(3, 3), 4, HOUR)
    assert scan.request == again
    scan.feed(page_of(1, 2, 3), None, HOUR)
    assert scan.request == PageRequest(3, 3, True, again.updated_after)


@pytest.mark.parametrize(("total", "is_counted"), [(995, True), (996, False), (None, True)])
def test_the_last_page_is_counted(total, is_counted):
    """A page is the last one, as far as is known, if it reaches the count."""
    scan = Scan(CONTACTS)
    scan.feed(page_of(*range(1, 501)), total, HOUR)
    assert scan.request == PageRequest(495, 500, is_counted)


@pytest.mark.parametrize(("counted", "bound"), [(5, None), (4, HOUR - timedelta(seconds=3))])
def test_it_looks_past_the_end_once_if_the_count_shows_more(counted, bound):
    """If the count has changed, a pass over recent changes follows."""
    scan = Scan(CONTACTS)
    scan.feed(page_of(1, 2, 3), 5, HOUR)
    assert scan.request == PageRequest(2, 500, True)
    scan.feed(page_of(3), counted, HOUR)
    assert scan.request == PageRequest(3, 500, True)
    scan.feed([], counted, HOUR)
    assert scan.request == (None if bound is None else PageRequest(0, 500, True, bound))


def test_a_record_that_changed_counts_once():
    """Otherwise it would look as if as many records were missing as have changed."""
    scan = Scan(CONTACTS)
    scan.feed(page_of(*range(1, 501)), None, HOUR)
    scan.feed(page_of(*range(600, 1_100)), None, HOUR)
    assert scan.request.skip == 445
    changed = page_of(*range(446, 500), updated="2026-03-29 00:59:59")
    scan.feed(changed + page_of(*range(500, 946)), None, HOUR)
    assert scan.request.skip == 940
    scan.feed(page_of(*range(941, 1_441)), None, HOUR)
    assert scan.request.skip == 1_435


def test_an_answer_without_a_time_keeps_when_a_record_was_read():
    """The record hasn't changed since, so it still shows that two pages join."""
    scan = Scan(CONTACTS, 2)
    changed = page_of(10, updated="2026-03-29 01:00:01")
    scan.feed(page_of(1, 2), None, HOUR)
    scan.feed(page_of(2) + changed, None, HOUR + timedelta(seconds=10))
    scan.feed(changed + page_of(11), None, None)
    assert scan.request.skip == 3
    scan.feed(changed + page_of(12), None, HOUR + timedelta(seconds=20))
    assert scan.request.skip == 4


# --- the rest --------------------------------------------------------------------------------------------


def test_the_bound_of_what_changed_meanwhile_is_the_scans_beginning():
    """That search starts three seconds before the scan: two for clocks, one for an exclusive bound."""
    crm = crm_of(1300, order="updated, latest first")
    crm.between = lambda crm, page: crm.update(1) if page == 1 else None
    read(crm)
    assert crm.requests[-1].updated_after == EPOCH + timedelta(seconds=97)
    assert all(request.updated_after is None for request in crm.requests[:-1])


def test_records_without_times_are_read_too():
    """Their contents show whether they changed."""
    scan = Scan(CONTACTS, 2)
    page = [{"CONTACT_ID": 1}, {"CONTACT_ID": 2}]
    assert ids(scan.feed(page, None, None)) == [1, 2]
    assert ids(scan.feed([{"CONTACT_ID": 2}, {"CONTACT_ID": 3}], None, None)) == [3]
    assert scan.feed([{"CONTACT_ID": 3}], 3, None) == []
    assert scan.request is None


def test_it_knows_how_many_are_left():
    """It knows it as soon as it has the count."""
    crm = crm_of(1300)
    scan = Scan(CONTACTS)
    assert scan.left == 0
    left = []
    while scan.request is not None:
        scan.feed(*crm.answer(scan.request, None))
        left.append(scan.left)
    assert left == [805, 310, 0]


def test_misuse_is_refused():
    """Pages of one can't overlap; a complete scan takes no more answers."""
    with pytest.raises(ValueError, match="page_size must be at least 2, not 1"):
        Scan(CONTACTS, 1)
    scan = Scan(CONTACTS)
    assert scan.page_size == 500
    scan.feed([], 0, EPOCH)
    with pytest.raises(ValueError, match=r"^the scan is complete"):
        scan.feed([], 0, EPOCH)
