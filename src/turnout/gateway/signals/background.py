"""This module holds prompts about everything and nothing: what a similarity signal must not fire on.

They are only ever compared with: the threshold of a signal lies above the nearest of them. Many share the
small talk of prompts ("how do I", "please write", "what is the best way to"), since that is what makes texts
look alike that are not about the same thing.
"""

from __future__ import annotations

UNRELATED = tuple(
    """
How do I change the oil in my car?
How do I get a driving licence for my son?
How do I remove a coffee stain from a white shirt?
How do I reset the clock on my oven?
How can I sleep better when it is hot at night?
How long should I boil an egg?
How much water does a cactus need in winter?
How many moons does Jupiter have?
Can you help me plan a trip to Lisbon in May?
Can you help me with my homework about volcanoes?
Can you explain how a suspension bridge carries its load?
Can you recommend a novel for a long flight?
Can you translate this sentence into Polish for me?
Could you write a short poem about autumn rain?
Could you check the grammar of this paragraph?
Could you give me a recipe for lentil soup?
I want to learn the guitar, where should I start?
I want to thank my neighbour for watering the plants, what should I write?
I need a name for my bakery.
I need to remove the last element of a list in Python.
I have a meeting at nine and a train at ten, can I make both?
I have been running for a month and my knee hurts, what should I do?
I would like to know more about the history of tea.
I am looking for a gift for my father, who likes fishing.
I am writing a speech for a wedding, please make it shorter.
I bought a new bicycle yesterday and the saddle is too high.
I can not open the window in my kitchen, it is stuck.
My cat does not eat since Monday, is that dangerous?
My laptop makes a loud noise when I watch videos.
My order of operations in this calculation seems wrong, where is the mistake?
My daughter wants to become a pilot, what does she have to study?
Please write an email that asks a professor for a meeting.
Please summarise the following article in three sentences.
Please list five differences between frogs and toads.
Please give me the capital cities of Scandinavia.
Please cancel my appointment with the dentist on Friday.
Please correct the spelling mistakes in this text.
What is the capital of Mongolia?
What is the difference between a virus and a bacterium?
What is the best way to learn vocabulary?
What is the meaning of the word serendipity?
What is the derivative of x squared times sine of x?
What does this error message mean: segmentation fault?
What should I wear to a job interview?
What time is it in Tokyo when it is noon in Berlin?
What happened in the year 1848 in Europe?
What are the rules of chess?
What are good exercises for the lower back?
When was the printing press invented?
When should I plant tomatoes?
Where can I see the northern lights?
Where is the nearest post office?
Which planet is the hottest, and why?
Which of these two sentences is correct?
Who wrote the play about the Danish prince?
Why is the sky blue during the day and red in the evening?
Why do leaves change their colour?
Why does my bread not rise?
Why is my code so slow when the list has a million entries?
Is it safe to drink tap water in Vienna?
Is there a bus from the airport to the old town?
Do penguins have knees?
Does this shirt go well with brown shoes?
Tell me a joke about a mathematician.
Tell me a story about a dragon who is afraid of fire.
Write a function that checks whether a number is prime.
Write a product description for a wooden toy train.
Write SQL that counts the visits of each day.
Write a haiku about the sea.
Explain photosynthesis to a child of eight.
Explain the offside rule.
Explain what recursion is with an example.
Describe the painting style of the impressionists.
Compare electric and petrol cars for somebody who drives little.
Compute 17 times 23 and show the steps.
Solve the equation 3x + 7 = 22.
Convert 12 miles into kilometres.
Translate "good morning, how are you" into Spanish.
Summarise the plot of the Odyssey.
Give me ten ideas for a birthday party in a garden.
Give me a workout plan for three days a week.
Give an example of a metaphor.
Make a packing list for a week of hiking.
Suggest a title for an essay about bees.
Proofread this: their going to there house over they're.
Fix the indentation of this YAML file.
Refactor this class so that it is easier to test.
Draft a note to my landlord about the broken heating.
Plan a menu for six guests, two of whom are vegetarian.
Play the role of a waiter in a restaurant and take my order.
Pretend that you are a tour guide in Rome.
Thanks, that helped a lot.
No, that is not what I meant, try again.
Yes, please go on.
Hello, how are you today?
Good evening.
The weather was fine and we walked along the river until it got dark.
Our company was founded in 1974 and makes pumps for swimming pools.
The committee will meet on the second Tuesday of the month to discuss the budget.
The patient reports a mild headache since yesterday and no fever.
The tenant shall pay the rent in advance on the first day of each month.
Interest rates rose by a quarter of a point, and shares fell.
Two trains leave at the same time from cities that are 300 kilometres apart, when do they meet?
A farmer has 17 sheep and all but 9 run away, how many are left?
Berlin, Hamburg, Munich: which one has the most inhabitants?
Once upon a time there was a king who had three sons.
To be or not to be, that is the question.
""".strip().splitlines()
)
"""The prompts, one a line."""
