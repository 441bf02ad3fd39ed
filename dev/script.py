"""What the robots say: a meeting of three with three topics.

The lines are those of about fifty that pocketsphinx understands best in these voices, so that a
demo without any account shows sensible text; `tests/dev/test_speech.py` holds them to that.
"""

from typing import Final

from dev.speech import Voice

CAST: Final = {"Maria": Voice.FIRST, "John": Voice.SECOND, "Aiko": Voice.THIRD}
DIALOGUE: Final = (
    # The new office
    ("Maria", "The most important question is the price of the building."),
    ("John", "The building is near the station and the river."),
    ("Aiko", "About sixty people will move in the summer."),
    ("Maria", "The old office is too small for all of us."),
    ("John", "There is a large room on the second floor."),
    ("Aiko", "How many people will work in the new office?"),
    # The money
    ("Maria", "Let us look at the money for next year."),
    ("Aiko", "We have more money than last year."),
    ("Maria", "It will cost about five thousand dollars."),
    ("John", "I agree with you and I have one more question."),
    ("Maria", "That is less than I expected."),
    # The program
    ("Aiko", "The first version of the program is ready."),
    ("John", "People want to see the results before the end of the week."),
    ("Aiko", "Our customers are very happy with the service."),
    ("Maria", "We found two problems in the first version."),
    ("John", "I will fix them before Wednesday."),
    ("Maria", "Both of the problems are easy to fix."),
    ("Aiko", "The next version will be ready in December."),
    ("Maria", "Yes, we can show it to them on Monday morning."),
    ("John", "That is a good idea but it will take more time."),
    ("Aiko", "Thank you very much and have a nice day."),
)
