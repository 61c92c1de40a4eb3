"""Short stories, put together from sentences that fit one another."""

from __future__ import annotations

from provider_starter.recipe.conversation import Conversation, Message
from provider_starter.recipe.phrasing import Draw, phrases

ASK = phrases("story")


def story(draw: Draw) -> Conversation:
    """Ask for a story, about a given hero or about none."""
    lists = draw.lexicon.lists
    hero = (
        draw.fresh(
            lambda: (
                draw.rng.choice(lists["story_heroes"])
                if draw.chance(0.7)
                else draw.lexicon.word(draw.rng, pieces=False)
            )
        )
        if not draw.held
        else draw.thing().split()[-1]
    )
    name = (
        draw.pick(draw.lexicon.lists["names"])
        if draw.chance(0.8)
        else draw.made_up().capitalize()[:8]
    )
    place, lost = draw.pick(lists["story_places"]), draw.pick(lists["story_lost"])
    friend = draw.pick([f for f in lists["story_friends"] if f != hero])
    trait = draw.pick(lists["story_traits"])
    spots = draw.rng.sample(lists["story_looks"], 3)
    text = draw.phrase(ASK, h=hero, a="an" if hero[0] in "aeiou" else "a")
    if hero not in text.lower():
        hero = draw.pick([h for h in lists["story_heroes"] if h != friend])
    pick, opening = draw.pick, draw.pick(("Once upon a time", "Long ago", "A long time ago"))
    plot = draw.number(0, 2)
    out = [
        f"{opening}, there was a {trait} {hero} named {name}.",
        f"{name} lived {pick(('in', 'near', 'close to', 'next to'))} {place}.",
        pick(
            (
                f"Every day, {name} played outside and sang songs.",
                f"{name} liked to look at the clouds and count the birds.",
                f"Everyone in the area knew {name} well.",
            )
        ),
    ]
    time = draw.pick(lists["story_times"])
    if plot == 0:
        out += [
            f"{time}, {name} lost a {lost}.",
            pick(
                (
                    f'"Oh no!" said {name}. "Where is my {lost}?"',
                    f"{name} was very sad and began to cry.",
                )
            ),
            f"{name} looked {spots[0]}, but it was not there.",
            f'A {friend} came by and asked, "Why are you sad?"',
            f'"I lost my {lost}," said {name}.',
            f'"I can help you," said the {friend}.',
            f"Together they looked {spots[2]}.",
            f"There it was! The {lost} was safe.",
            f'"Thank you!" said {name}, and they danced with joy.',
        ]
    elif plot == 1:
        out += [
            f"{time}, a big storm came to {place}.",
            pick(
                (
                    "The wind was loud and the rain was cold.",
                    "The sky was dark and the trees were shaking.",
                )
            ),
            f"{name} heard a small voice {spots[0]}.",
            f"It was a {friend}, cold and wet.",
            f'"Please help me," said the {friend}. "I cannot find my way home."',
            f'"Come with me," said {name}. "My house is warm."',
            "They drank hot tea until the storm was over.",
            f"In the morning, {name} walked with the {friend} all the way home.",
            f'"You are very kind," said the {friend}.',
        ]
    else:
        out += [
            f"{time}, {name} wanted to see the world.",
            f"{name} packed a {lost} and some bread, and went away.",
            f"First, {name} walked to a place {spots[0]} and met a {friend}.",
            f'"May I come too?" asked the {friend}.',
            "They saw high towers, wide rivers and many stars.",
            f"But at night, {name} thought of home.",
            f'"The world is big," said {name}, "but home is where my friends are."',
            f"So they went back to {place}, happy and tired.",
        ]
    out.append(draw.pick(lists["story_ends"]).format(n=name, f=friend))
    messages = (Message("user", text), Message("assistant", " ".join(out)))
    return Conversation("story", messages, kind="story", phrasing=draw.core, item=hero)
