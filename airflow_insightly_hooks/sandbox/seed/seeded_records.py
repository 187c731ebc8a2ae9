"""The records that a sandbox begins with: made up, the same each time, tied to one another."""

from __future__ import annotations

from datetime import datetime, timezone
from functools import lru_cache

from airflow_insightly_hooks.sandbox.crm.clock import Clock, format_time
from airflow_insightly_hooks.sandbox.crm.custom_fields import CUSTOM_OBJECTS
from airflow_insightly_hooks.sandbox.crm.record_store import Store
from airflow_insightly_hooks.sandbox.crm.record_table import Record
from airflow_insightly_hooks.sandbox.seed import sample_words as words
from airflow_insightly_hooks.sandbox.seed.record_maker import FIRST_IDS, YEAR, RecordMaker, address

__all__ = ["HELP_PAGE_TASK", "seeded_store"]

API_USER_ID = FIRST_IDS["Users"]
"""The user whose key ``sandbox-key`` is."""

HELP_PAGE_TASK: Record = {
    "TASK_ID": 99922875,
    "TITLE": "New Lead Task",
    "CATEGORY_ID": 9998895,
    "DUE_DATE": "2017-03-10 08:00:00",
    "PUBLICLY_VISIBLE": True,
    "COMPLETED": False,
    "DETAILS": "",
    "STATUS": "NOT STARTED",
    "PRIORITY": 2,
    "PERCENT_COMPLETE": 0,
    "OWNER_VISIBLE": False,
    "RESPONSIBLE_USER_ID": API_USER_ID,
    "OWNER_USER_ID": API_USER_ID,
    "DATE_CREATED_UTC": "2017-03-10 03:34:10.787",
    "DATE_UPDATED_UTC": "2017-03-10 03:34:10.787",
    "REMINDER_SENT": False,
    "TASKLINKS": [],
}
"""The task of Insightly's help page on webhooks, as the API would answer it: its fields, in its order."""


def seeded_store(clock: Clock, started: float) -> Store:
    """Return a store with records of every type.

    :param started: seconds since 1970; the records' times lie in the year before it.
    """
    store = Store(clock, API_USER_ID)
    store.load(_seed(started))
    return store


@lru_cache(maxsize=1)  # for sandboxes that are reset again and again, between tests
def _seed(started: float) -> str:
    store = Store(Clock(lambda: started), API_USER_ID)
    make = RecordMaker(store, datetime.fromtimestamp(started, timezone.utc))
    for plant in (_users, _people, _sales, _work, _support, _custom_objects):
        plant(make)
    return store.dumped()


def _users(make: RecordMaker) -> None:
    for number, (first, last) in enumerate(
        (
            ("Sam", "Sandbox"),
            ("Amélie", "Dubois"),
            ("Jürgen", "Müller"),
            ("Priya", "Iyer"),
            ("花子", "山田"),
        )
    ):
        make.add(
            "Users",
            FIRST_NAME=first,
            LAST_NAME=last,
            CONTACT_ID=FIRST_IDS["Contacts"] + number,
            TIMEZONE_ID="Pacific Standard Time",
            EMAIL_ADDRESS=f"user{number}@example.com",
            EMAIL_DROPBOX_IDENTIFIER=f"sandbox{number}",
            EMAIL_DROPBOX_ADDRESS=f"sandbox{number}@mail.example.com",
            ADMINISTRATOR=number < 2,
            ACCOUNT_OWNER=number == 0,
            ACTIVE=number < 4,
            USER_CURRENCY="USD",
            CONTACT_DISPLAY="FIRST_LAST",
            CONTACT_ORDER="LAST",
            TASK_WEEK_START=1,
            INSTANCE_ID=123_456,
            PROFILE_ID=1,
            ROLE_ID=1,
        )


def _people(make: RecordMaker) -> None:
    for company in words.COMPANIES:
        street, city, state, postcode, country = make.one(words.PLACES)
        make.add(
            "Organisations",
            ORGANISATION_NAME=company,
            PHONE=make.phone(),
            WEBSITE=f"https://organisation{make.serial('site')}.example.com",
            **address("ADDRESS_BILLING", street, city, state, postcode, country),
            TAGS=make.tags(),
            EMAILDOMAINS=[{"EMAIL_DOMAIN": f"organisation{make.serial('domain')}.example.com"}],
        )
    for number in range(60):
        organisation = make.some("Organisations")
        make.add(
            "Contacts",
            SALUTATION=make.one(words.SALUTATIONS),
            FIRST_NAME=make.one(words.FIRST_NAMES),
            LAST_NAME=make.one(words.LAST_NAMES),
            EMAIL_ADDRESS=f"contact{number}@example.com",
            PHONE=make.phone(),
            TITLE=make.one(words.JOB_TITLES),
            ORGANISATION_ID=organisation["ORGANISATION_ID"],
            DATE_OF_BIRTH=f"{make.random.randint(1955, 2001)}-0{make.random.randint(1, 9)}-17 00:00:00",
            **address("ADDRESS_MAIL", *make.one(words.PLACES)),
            TAGS=make.tags(),
            LINKS=[make.link("Organisations", organisation)],
            DATES=[{"OCCASION_NAME": "First order", "OCCASION_DATE": "2019-05-02", "REPEAT_YEARLY": True}]
            if number % 7 == 0
            else [],
        )
    for number in range(40):
        make.add(
            "Leads",
            FIRST_NAME=make.one(words.FIRST_NAMES),
            LAST_NAME=make.one(words.LAST_NAMES),
            EMAIL=f"lead{number}@example.com",
            TITLE=make.one(words.JOB_TITLES),
            ORGANISATION_NAME=make.one(words.COMPANIES),
            INDUSTRY=make.one(words.INDUSTRIES),
            EMPLOYEE_COUNT=make.random.randint(3, 900),
            LEAD_RATING=make.random.randint(1, 5),
            LEAD_SOURCE_ID=make.random.randint(3_300_001, 3_300_004),
            LEAD_STATUS_ID=make.random.randint(3_400_001, 3_400_003),
            PHONE=make.phone(),
            **address("ADDRESS", *make.one(words.PLACES)),
            TAGS=make.tags(),
        )
    for number in range(20):
        lead = make.some("Leads")
        make.add(
            "Prospect",
            LEAD_ID=lead["LEAD_ID"],
            FIRST_NAME=lead["FIRST_NAME"],
            LAST_NAME=lead["LAST_NAME"],
            EMAIL_ADDRESS=f"prospect{number}@example.com",
            INDUSTRY=lead["INDUSTRY"],
            SCORE=make.random.randint(0, 100),
            GRADE=make.one(("A", "B+", "B", "C")),
            TAGS=make.tags(),
        )


def _sales(make: RecordMaker) -> None:
    for name, is_standard in (("Standard", True), ("Partners", False)):
        make.add("Pricebook", NAME=name, CURRENCY_CODE="USD", IS_STANDARD=is_standard, ACTIVE=True)
    for name in words.PRODUCTS:
        price = make.random.randint(20, 900) + 0.5
        product = make.add(
            "Product",
            PRODUCT_NAME=name,
            PRODUCT_CODE=f"P-{make.serial('code'):03}",
            PRODUCT_SKU=f"SKU{make.serial('sku'):05}",
            DEFAULT_PRICE=price,
            ACTIVE=True,
        )
        for pricebook in make.all("Pricebook"):
            make.add(
                "PricebookEntry",
                PRICEBOOK_ID=pricebook["PRICEBOOK_ID"],
                PRODUCT_ID=product["PRODUCT_ID"],
                PRICE=price,
                USE_STANDARD_PRICE=True,
                ACTIVE=True,
            )
    for _ in range(30):
        organisation = make.some("Organisations")
        make.add(
            "Opportunities",
            OPPORTUNITY_NAME=f"{make.one(words.DEALS)}, {organisation['ORGANISATION_NAME']}",
            OPPORTUNITY_STATE=make.one(("OPEN", "WON", "LOST", "SUSPENDED")),
            BID_AMOUNT=make.random.randint(5, 900) * 100,
            PROBABILITY=make.random.randint(1, 10) * 10,
            FORECAST_CLOSE_DATE=make.day(-30, 180),
            ORGANISATION_ID=organisation["ORGANISATION_ID"],
            PRICEBOOK_ID=make.some("Pricebook")["PRICEBOOK_ID"],
            RESPONSIBLE_USER_ID=make.user(),
            TAGS=make.tags(),
            LINKS=[make.link("Contacts", make.some("Contacts"))],
        )
    for number in range(12):
        opportunity, contact = make.some("Opportunities"), make.some("Contacts")
        lines = []
        for entry in make.random.sample(make.all("PricebookEntry"), 2):
            item = {
                "PRICEBOOK_ENTRY_ID": entry["PRICEBOOK_ENTRY_ID"],
                "CURRENCY_CODE": "USD",
                "UNIT_PRICE": entry["PRICE"],
                "LIST_PRICE": entry["PRICE"],
                "QUANTITY": make.random.randint(1, 40),
            }
            lines.append(
                make.add("OpportunityLineItem", OPPORTUNITY_ID=opportunity["OPPORTUNITY_ID"], **item)
            )
        total = sum(line["TOTAL_PRICE"] for line in lines)
        quotation = make.add(
            "Quotation",
            QUOTATION_NAME=f"Quotation {number + 1}",
            OPPORTUNITY_ID=opportunity["OPPORTUNITY_ID"],
            ORGANISATION_ID=opportunity["ORGANISATION_ID"],
            CONTACT_ID=contact["CONTACT_ID"],
            PRICEBOOK_ID=opportunity["PRICEBOOK_ID"],
            QUOTE_STATUS=make.one(("DRAFT", "PRESENTED", "ACCEPTED")),
            QUOTATION_EXPIRATION_DATE=make.day(10, 60),
            LINE_ITEM_COUNT=len(lines),
            SUBTOTAL=total,
            TOTAL_PRICE=total,
            GRAND_TOTAL=total,
            **address("ADDRESS_BILLING", *make.one(words.PLACES)),
        )
        for order, line in enumerate(lines, start=1):
            shared = ("OPPORTUNITY_ITEM_ID", "PRICEBOOK_ENTRY_ID", "CURRENCY_CODE", "UNIT_PRICE")
            make.add(
                "QuotationLineItem",
                QUOTE_ID=quotation["QUOTE_ID"],
                QUANTITY=line["QUANTITY"],
                LIST_PRICE=line["LIST_PRICE"],
                SORT_ORDER=order,
                **{name: line[name] for name in shared},
            )


def _work(make: RecordMaker) -> None:
    for number in range(15):
        organisation = make.some("Organisations")
        make.add(
            "Projects",
            PROJECT_NAME=f"{make.one(words.PROJECTS)}, {organisation['ORGANISATION_NAME']}",
            STATUS=make.one(("NOT STARTED", "IN PROGRESS", "DEFERRED", "COMPLETED")),
            STARTED_DATE=make.day(-200, -1),
            RESPONSIBLE_USER_ID=make.user(),
            TAGS=make.tags(),
            LINKS=[make.link("Organisations", organisation)],
        )
        make.add(
            "Milestones",
            TITLE=f"Milestone {number + 1}",
            COMPLETED=False,
            DUE_DATE=make.day(-20, 120),
            PROJECT_ID=make.some("Projects")["PROJECT_ID"],
            RESPONSIBLE_USER=make.user(),
        )
    for _ in range(HELP_PAGE_TASK["TASK_ID"] - FIRST_IDS["Tasks"]):
        completed = make.random.random() < 0.3
        make.add(
            "Tasks",
            TITLE=make.one(words.TASKS),
            DUE_DATE=make.day(-60, 90),
            COMPLETED=completed,
            COMPLETED_DATE_UTC=make.day(-60, -1) if completed else None,
            STATUS="COMPLETED" if completed else make.one(("NOT STARTED", "IN PROGRESS", "WAITING")),
            PRIORITY=make.random.randint(1, 3),
            PERCENT_COMPLETE=100 if completed else make.one((0, 25, 50)),
            PROJECT_ID=make.one((None, make.some("Projects")["PROJECT_ID"])),
            RESPONSIBLE_USER_ID=make.user(),
            LINKS=[make.link("Contacts", make.some("Contacts"))],
        )
    make.store.put_in(make.store.record_types["Tasks"], {**HELP_PAGE_TASK, "TASKLINKS": []})
    for _ in range(20):
        day = make.day(-90, 60)[:10]
        make.add(
            "Events",
            TITLE=make.one(words.MEETINGS),
            LOCATION=make.one(words.PLACES)[1],
            START_DATE_UTC=f"{day} 09:00:00",
            END_DATE_UTC=f"{day} 10:30:00",
            LINKS=[make.link("Contacts", make.some("Contacts"))],
        )
    for number in range(30):
        about = make.one(make.store.record_types["Notes"].parents)
        make.add(
            "Notes",
            TITLE=make.one(words.NOTES),
            BODY=f"<p>Written down after call {number + 1}.</p>",
            LINKS=[make.link(about, make.some(about))],
        )
    for number in range(15):
        contact = make.some("Contacts")
        make.add(
            "Emails",
            EMAIL_FROM=contact["EMAIL_ADDRESS"],
            SUBJECT=f"{make.one(words.DEALS)}: question {number + 1}",
            EMAIL_DATE_UTC=make.day(-300, -1),
            FORMAT="HTML",
            SIZE=make.random.randint(900, 90_000),
            TAGS=make.tags(),
            LINKS=[make.link("Contacts", contact)],
        )
    for name in ("Offer", "Order confirmation", "Reminder", "Welcome letter"):
        make.add(
            "DocumentTemplates",
            TEMPLATE_NAME=name,
            TEMPLATE_FILE_TYPE="docx",
            RELATED_OBJECT_NAME="Opportunity",
            ACTIVE=True,
        )


def _support(make: RecordMaker) -> None:
    for _ in range(25):
        contact = make.some("Contacts")
        make.add(
            "Ticket",
            SUBJECT=make.one(words.PROBLEMS),
            TICKET_STATUS=make.one(("OPEN", "PENDING", "SOLVED", "CLOSED")),
            PRIORITY=make.one(("LOW", "NORMAL", "HIGH", "URGENT")),
            CONTACT_ID=contact["CONTACT_ID"],
            ORGANISATION_ID=contact["ORGANISATION_ID"],
            SOURCE="EMAIL",
            TAGS=make.tags(),
        )
    for name in ("Orders", "Products"):
        category = make.add("KnowledgeArticleCategory", CATEGORY_NAME=name)
        for folder in ("First steps", "Questions"):
            make.add(
                "KnowledgeArticleFolder",
                FOLDER_NAME=folder,
                CATEGORY_ID=str(category["CATEGORY_ID"]),
                VISIBILITY="PUBLIC",
                ORDER_ARTICLES="MANUAL",
            )
    for title in words.ARTICLES:
        shelf = make.some("KnowledgeArticleFolder")
        make.add(
            "KnowledgeArticle",
            CATEGORY_ID=int(shelf["CATEGORY_ID"]),
            FOLDER_ID=shelf["FOLDER_ID"],
            Title=title,
            Body=f"<p>{title}.</p>",
            URL_SLUG=title.lower().replace(" ", "-"),
            Status="Published",
            FIRST_PUBLISHED_DATE_UTC=make.day(-300, -200),
            LAST_PUBLISHED_DATE_UTC=make.day(-199, -2),
            TAGS=make.tags(),
        )
    forum_category = make.add("ForumCategories", CATEGORY_NAME="Community")
    for number, name in enumerate(("Announcements", "Ideas", "Questions"), start=1):
        forum = make.add(
            "CommunityForums",
            FORUM_CATEGORY_ID=forum_category["FORUM_CATEGORY_ID"],
            FORUM_NAME=name,
            FORUM_TYPE="DISCUSSION",
            VISIBILITY="PUBLIC",
            FORUM_ORDER=str(number),
        )
        for problem in make.random.sample(words.PROBLEMS, 3):
            post = make.add(
                "CommunityPosts",
                FORUM_ID=forum["FORUM_ID"],
                POST_NAME=problem,
                MESSAGE=f"{problem}. Who knows more?",
                STATUS="OPEN",
                COMMENT_COUNT="1",
                VIEW_COUNT=str(make.random.randint(1, 400)),
                CREATED_CONTACT_ID=make.some("Contacts")["CONTACT_ID"],
            )
            make.add(
                "CommunityComments",
                BODY="I had that too.",
                POST_ID=post["POST_ID"],
                FORUM_ID=forum["FORUM_ID"],
                CREATED_CONTACT_ID=make.some("Contacts")["CONTACT_ID"],
            )


def _custom_objects(make: RecordMaker) -> None:
    created = format_time(make.started - YEAR)
    for name, custom_object in CUSTOM_OBJECTS.items():
        make.store.custom_objects[name] = custom_object.metadata(API_USER_ID, created)
    for number in range(15):
        make.add("Invoice__c", RECORD_NAME=f"{make.one(words.COMPANIES)} {number + 1:03}")
    for _, city, *_ in words.PLACES:
        make.add("Site__c", RECORD_NAME=f"Warehouse {city}")
